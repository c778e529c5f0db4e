"""What a real API server writes is understood, whatever the chunks in which it arrives."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.protocols.links import merged
from vkubelet.protocols import spdy
from vkubelet.protocols.remote_command import ResizeDecoder

DATA = Path(__file__).parent / "data"

ERROR, STDIN, STDOUT, LAST = 1, 3, 5, 7


def _opened(last: str) -> list[spdy.Event]:
    names = {ERROR: "error", STDIN: "stdin", STDOUT: "stdout", LAST: last}
    return [spdy.StreamOpened(stream_id, {"streamtype": name}) for stream_id, name in names.items()]


TRANSCRIPTS: dict[str, list[spdy.Event]] = {
    "stdin": [
        *_opened("stderr"),
        spdy.DataReceived(STDIN, b"hello\n"),
        spdy.StreamEnded(STDIN),
    ],
    "tty": [
        *_opened("resize"),
        spdy.DataReceived(STDIN, b"\0"),
        spdy.DataReceived(LAST, b'{"Width":99,"Height":33}\n'),
    ],
    "abandoned": [
        *_opened("stderr"),
        spdy.DataReceived(STDIN, b"hello\n"),
        *(spdy.StreamReset(stream_id, spdy.ResetStatus.CANCEL) for stream_id in (ERROR, STDOUT, LAST)),
        spdy.GoAwayReceived(0, spdy.GoAwayStatus.OK),
        spdy.StreamEnded(STDIN),
    ],
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
@pytest.mark.parametrize("size", [1, 7, 1 << 16], ids=["bytes", "small chunks", "at once"])
def test_the_api_server_is_understood(name: str, size: int) -> None:
    wire = (DATA / f"apiserver-1.36-exec-{name}.bin").read_bytes()
    server = spdy.Connection(spdy.Role.SERVER)
    events: list[spdy.Event] = []
    for start in range(0, len(wire), size):
        events += server.receive_data(wire[start : start + size])
    assert merged(events) == TRANSCRIPTS[name]
    assert server.data_to_send() == b""


def test_the_terminal_of_kubectl_has_a_size() -> None:
    sizes = [event.data for event in TRANSCRIPTS["tty"] if isinstance(event, spdy.DataReceived)]
    assert ResizeDecoder().feed(sizes[-1]) == [(99, 33)]
