"""Watches over HTTP: initial objects, changes as they come, bookmarks, and 410 Gone when too much was missed."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from fluobook_lab.kube.answers import encoded
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.lists import selector
from fluobook_lab.kube.requests import check_list_options, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fluobook_lab.kube.answers import Form
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.storage import Event, Storage

BOOKMARK_SECONDS = 60.0
"""Real seconds between bookmarks, as the real server sends them."""
DEFAULT_SECONDS = 1800.0
"""How long a watch lasts that names no `timeoutSeconds`."""


@dataclass
class Stream:
    """One watch request.

    Args:
        storage: where the objects are.
        resource: what is watched.
        form: how objects are to be shown.
        query: the request's parameters.
        namespace: only this namespace's, if it is named.
    """

    storage: Storage
    resource: Resource
    form: Form
    query: Mapping[str, str]
    namespace: str
    sent: int = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer until the time is over, the client goes, or the history breaks off.

        Raises:
            ApiError: 400, 422 or 500, an option makes no sense.
        """
        version_of(self.query.get("resourceVersion", ""))
        check_list_options(self.query, watch=True)
        fits = selector(self.resource, self.namespace, self.query)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        queue = self.storage.subscribe(self.resource.store_key)
        try:
            begin = list(self._begin(fits))
            await response.prepare(request)
            await _write(response, begin)
            deadline = asyncio.get_running_loop().time() + float(self.query.get("timeoutSeconds") or DEFAULT_SECONDS)
            await self._follow(response, queue, fits, deadline)
        except ApiError as error:
            await self._end(request, response, error)
        finally:
            self.storage.unsubscribe(self.resource.store_key, queue)
        return response

    async def _end(self, request: web.Request, response: web.StreamResponse, error: ApiError) -> None:
        if not response.prepared:
            await response.prepare(request)
        await _write(response, [encoded({"type": "ERROR", "object": error.status()})])

    def _begin(self, fits: Callable[[Obj], bool]) -> Iterator[bytes]:
        asked = self.query.get("resourceVersion", "")
        since = version_of(asked)
        initial = self.query.get("sendInitialEvents")
        if initial == "true" or (since == 0 and initial is None):
            for _, obj in self.storage.scan(self.resource.store_key, self.namespace):
                if fits(obj):
                    yield self._line("ADDED", obj)
            if initial == "true" and self.query.get("allowWatchBookmarks") == "true":
                yield self._bookmark({"k8s.io/initial-events-end": "true"})
            return
        if since:
            yield from self._lines(self.storage.since(self.resource.store_key, since), fits)

    async def _follow(
        self,
        response: web.StreamResponse,
        queue: asyncio.Queue[Event],
        fits: Callable[[Obj], bool],
        deadline: float,
    ) -> None:
        now = asyncio.get_running_loop().time
        while (left := deadline - now()) > 0:
            events: list[Event] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, BOOKMARK_SECONDS)):
                    events.append(await queue.get())
            while not queue.empty():
                events.append(queue.get_nowait())
            lines = list(self._lines(events, fits))
            if not events and now() < deadline and self.query.get("allowWatchBookmarks") == "true":
                lines.append(self._bookmark({}))
            await _write(response, lines)
            if any(event.type == "GONE" for event in events):
                return

    def _lines(self, events: Iterable[Event], fits: Callable[[Obj], bool]) -> Iterator[bytes]:
        for event in events:
            if event.type == "GONE":
                yield encoded({"type": "ERROR", "object": event.object})
            elif kind := _as_seen(event, fits):
                gone = kind == "DELETED" and event.type != kind
                yield self._line(kind, _last_seen(event)) if gone else self._encoded_event(event, kind)

    def _encoded_event(self, event: Event, kind: str) -> bytes:
        """Many watches show the same event: its plain form is encoded once."""
        if self.form.kind:
            return self._line(kind, event.object)
        key = f"{kind} {self.resource.api_version}"
        if key not in event.encoded:
            event.encoded[key] = self._line(kind, event.object)
        return event.encoded[key]

    def _line(self, kind: str, obj: Obj) -> bytes:
        shown = self.form.one(self.resource, {**obj, "apiVersion": self.resource.api_version}, headers=self.sent == 0)
        self.sent += 1
        return encoded({"type": kind, "object": shown})

    def _bookmark(self, annotations: dict[str, str]) -> bytes:
        metadata: Obj = {"resourceVersion": str(self.storage.revision)}
        metadata |= {"annotations": annotations} if annotations else {}
        obj = {"kind": self.resource.kind, "apiVersion": self.resource.api_version, "metadata": metadata}
        return encoded({"type": "BOOKMARK", "object": obj})


def _as_seen(event: Event, fits: Callable[[Obj], bool]) -> str:
    """What an event is to somebody who sees only what fits: objects come into view and leave it."""
    before = event.previous is not None and fits(event.previous)
    after = event.type != "DELETED" and fits(event.object)
    if after:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else ""


def _last_seen(event: Event) -> Obj:
    """What somebody saw of an object that left the view: as it was, in the version in which it left."""
    before = event.previous or event.object
    version = event.object["metadata"]["resourceVersion"]
    return {**before, "metadata": {**before["metadata"], "resourceVersion": version}}


async def _write(response: web.StreamResponse, lines: list[bytes]) -> None:
    if lines:
        await response.write(b"\n".join(lines) + b"\n")
