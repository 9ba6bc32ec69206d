"""One event loop on a thread of its own, so that blocking code can use asyncio clients from any thread.

Stages run in threads, and in Jupyter the main thread runs a loop already; so neither can be asked to run ours.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from concurrent.futures import Future

T = TypeVar("T")


class BackgroundLoop:
    """An event loop that runs on a daemon thread until the process ends."""

    def __init__(self, name: str = "fluobook-loop") -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=name, daemon=True).start()

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run it on the loop and wait for its result; what interrupts the wait cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def soon(self, callback: Callable[[], object]) -> None:
        """Call it on the loop, without waiting."""
        self._loop.call_soon_threadsafe(callback)

    def iterate(self, source: AsyncIterator[T], *, ahead: int = 4096) -> Iterator[T]:
        """The items of an asynchronous source, in a thread that may block; at most some `ahead` items wait.

        Ending the iteration early (`close()`, or leaving the loop) cancels the source.
        """
        pipe = _Pipe(source, ahead)
        pump = asyncio.run_coroutine_threadsafe(pipe.pump(), self._loop)
        pump.add_done_callback(pipe.end)
        try:
            while items := pipe.take():
                self._loop.call_soon_threadsafe(pipe.room.set)
                yield from items
            pump.result()
        finally:
            pump.cancel()


class _Pipe(Generic[T]):
    """Hands items from the loop's thread to another in batches: a lock for each item would cost more than the item."""

    def __init__(self, source: AsyncIterator[T], ahead: int) -> None:
        self._source, self._ahead = source, ahead
        self._items: deque[T] = deque()
        self._ready = threading.Condition()
        self._ended = False
        self.room = asyncio.Event()

    async def pump(self) -> None:
        """Fill the pipe, and wait while it is full."""
        async for item in self._source:
            with self._ready:
                self._items.append(item)
                if len(self._items) == 1:
                    self._ready.notify()
                full = len(self._items) >= self._ahead
            if full:
                self.room.clear()
                await self.room.wait()

    def end(self, _pump: Future[None]) -> None:
        """Wake whoever waits: nothing more will come."""
        with self._ready:
            self._ended = True
            self._ready.notify()

    def take(self) -> deque[T]:
        """Everything that has come, as soon as there is something; empty once the source has ended."""
        with self._ready:
            self._ready.wait_for(lambda: self._items or self._ended)
            items, self._items = self._items, deque()
        return items


@lru_cache(maxsize=1)
def background() -> BackgroundLoop:
    """The one loop that the clients of this process share."""
    return BackgroundLoop()
