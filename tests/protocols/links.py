"""An in-memory link between two SPDY connections, and ways to look at events."""

from __future__ import annotations

from vkubelet.protocols import spdy


class ConnectionPair:
    """A client and a server; `exchange` carries bytes until both are quiet, and collects the events."""

    def __init__(self, *, server_limits: spdy.Limits | None = None) -> None:
        self.client = spdy.Connection(spdy.Role.CLIENT)
        self.server = spdy.Connection(spdy.Role.SERVER, server_limits)

    def exchange(self) -> tuple[list[spdy.Event], list[spdy.Event]]:
        """(what the client heard, what the server heard)."""
        client_events: list[spdy.Event] = []
        server_events: list[spdy.Event] = []
        while True:
            to_server, to_client = self.client.data_to_send(), self.server.data_to_send()
            if not to_server and not to_client:
                return client_events, server_events
            server_events += self.server.receive_data(to_server)
            client_events += self.client.receive_data(to_client)

    def open_stream(self, stream_type: str) -> int:
        """A stream that both sides know and the server has accepted."""
        stream_id = self.client.open_stream({"streamType": stream_type})
        self.exchange()
        self.server.reply(stream_id)
        self.exchange()
        return stream_id


def merged(events: list[spdy.Event]) -> list[spdy.Event]:
    """The same events with neighbouring data of one stream joined: where it was cut says nothing."""
    result: list[spdy.Event] = []
    for event in events:
        last = result[-1] if result else None
        if (
            isinstance(event, spdy.DataReceived)
            and isinstance(last, spdy.DataReceived)
            and last.stream_id == event.stream_id
        ):
            result[-1] = spdy.DataReceived(event.stream_id, last.data + event.data)
        else:
            result.append(event)
    return result
