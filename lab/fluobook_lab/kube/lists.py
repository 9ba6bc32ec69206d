"""Lists, page by page, and watches."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from fluobook_lab.kube.errors import ApiError, bad_request, expired
from fluobook_lab.kube.requests import number, version_of
from fluobook_lab.kube.responses import encoded
from fluobook_lab.kube.selectors import selector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.responses import Form
    from fluobook_lab.kube.storage import Event, Key, Storage


def page(storage: Storage, resource: Resource, namespace: str, query: Mapping[str, str]) -> tuple[list[Obj], Obj]:
    """The objects of one page, and the list's metadata with the token of the next.

    All pages of a list, and lists of an exact version, show the objects as they were then.

    Raises:
        ApiError: 400 for options that make no sense, 410 for a version whose time is over.
    """
    fits = selector(namespace, query)
    after, revision = _begin(query)
    if revision and storage.is_compacted(resource.store_key, revision):
        raise expired("The resourceVersion or the continue token is too old.")
    items = storage.scan(resource.store_key, namespace, revision)
    selected = [item for item in items if list(item[0]) > after and fits(item[1])]
    metadata: Obj = {"resourceVersion": str(revision or storage.revision)}
    limit = 0 if query.get("resourceVersion") == "0" else number(query.get("limit") or "0")
    if 0 < limit < len(selected):
        metadata |= {"continue": _token(revision or storage.revision, selected[limit - 1][0])}
        if not (query.get("labelSelector") or query.get("fieldSelector")):  # unknown with a selector
            metadata |= {"remainingItemCount": len(selected) - limit}
        selected = selected[:limit]
    return [{**obj, "apiVersion": resource.api_version} for _, obj in selected], metadata


def _begin(query: Mapping[str, str]) -> tuple[list[str], int]:
    """After which key a page begins, and the version that it shows; 0 is the newest."""
    asked, token = query.get("resourceVersion", ""), query.get("continue", "")
    if asked and not asked.isdecimal():
        raise bad_request(f'invalid resource version: "{asked}"')
    if token:
        if asked not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        return _resumed(token)
    paged_at = query.get("limit") and asked not in ("", "0") and not query.get("resourceVersionMatch")
    return [], int(asked) if query.get("resourceVersionMatch") == "Exact" or paged_at else 0


def _token(revision: int, key: Key) -> str:
    content = {"v": "meta.k8s.io/v1", "rv": revision, "start": "/".join(filter(None, key)) + "\0"}
    return base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).decode().rstrip("=")


def _resumed(token: str) -> tuple[list[str], int]:
    try:
        content = dict(json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))))
        namespace, _, name = str(content.get("start", "")).rstrip("\0").rpartition("/")
        version, revision = content.get("v", ""), int(content.get("rv", 0))
    except (binascii.Error, ValueError, TypeError) as error:
        raise bad_request(f"invalid continue token: {error}") from error
    if version != "meta.k8s.io/v1":
        raise bad_request("invalid continue token: it is of another version")
    return [namespace, name], revision


BOOKMARK_SECONDS = 60.0
"""Real seconds between bookmarks, as the real server sends them."""
DEFAULT_SECONDS = 1800
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
        seconds = number(self.query.get("timeoutSeconds") or str(DEFAULT_SECONDS))
        fits = selector(self.namespace, self.query)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        queue = self.storage.subscribe(self.resource.store_key)
        try:
            begin = list(self._begin(fits))
            await response.prepare(request)
            await _write(response, begin)
            deadline = asyncio.get_running_loop().time() + seconds
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
        shown = self.form.single(
            self.resource, {**obj, "apiVersion": self.resource.api_version}, headers=self.sent == 0
        )
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
