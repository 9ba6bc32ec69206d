"""The address that control planes share: Talos gives it to one of them, and to another when that one is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class SharedAddress(Generic[T]):
    """Who has the address, by the UUID of its machine; "" if nobody has.

    Args:
        address: the address, or "" if there is none.
        servers: what serves the API, by machine; what serves it at this address is added.
        serve: lets a machine serve it.
        close: ends that.
    """

    def __init__(
        self,
        address: str,
        servers: dict[str, list[T]],
        *,
        serve: Callable[[str], Awaitable[T]],
        close: Callable[[T], None],
    ) -> None:
        self.holder = ""
        self._address, self._servers, self._serve, self._close = address, servers, serve, close

    async def give(self, *, lost: str = "") -> None:
        """Give the address to a machine that serves, if nobody has it or `lost` had it."""
        if self.holder == lost:
            self.holder = ""
        if not self._address or self.holder or not self._servers:
            return
        chosen = self.holder = next(iter(self._servers))
        server = await self._serve(chosen)
        if self.holder == chosen and chosen in self._servers:
            self._servers[chosen].append(server)
        else:
            self._close(server)
