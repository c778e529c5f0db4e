"""The echo behind every port of the memory provider."""

from __future__ import annotations

import asyncio

import pytest

from providers.memory.ports import EchoConnection


async def test_what_is_written_comes_back_in_pieces_as_asked_for() -> None:
    connection = EchoConnection()
    await connection.write(b"hello")
    assert await connection.read(2) == b"he"
    assert await connection.read(100) == b"llo"


async def test_the_end_comes_behind_the_rest() -> None:
    connection = EchoConnection()
    await connection.write(b"rest")
    await connection.write_eof()
    assert await connection.read(100) == b"rest"
    assert await connection.read(100) == b""
    with pytest.raises(BrokenPipeError):
        await connection.write(b"more")


async def test_a_writer_waits_for_the_reader() -> None:
    connection = EchoConnection()
    writing = asyncio.create_task(connection.write(bytes(1 << 20)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not writing.done()
    while not writing.done():
        await connection.read(1 << 16)
        await asyncio.sleep(0)


async def test_a_closed_connection_takes_nothing() -> None:
    connection = EchoConnection()
    connection.close()
    connection.close()
    with pytest.raises(BrokenPipeError):
        await connection.write(b"x")
