"""Bytes carried both ways between two connections, until either ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CHUNK = 1 << 16


async def exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    connect: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]],
) -> None:
    """Connect there, and carry; a connection that cannot be made is cut here too."""
    try:
        there, back = await connect()
    except OSError:
        writer.transport.abort()
        return
    try:
        await asyncio.gather(_pump(reader, back), _pump(there, writer))
    finally:
        for one in (writer, back):
            one.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
