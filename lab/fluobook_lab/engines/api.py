"""The lab's own access to the real API server: a client for JSON over TLS, and the requests in the audit log."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp

from fluobook.machine import pki
from fluobook_lab.http import Request
from fluobook_lab.kube.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from fluobook.machine.pki import KeyPair
    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.objects import Obj

MERGE, APPLY, JSON_TYPE = "application/merge-patch+json", "application/apply-patch+yaml", "application/json"
TIMEOUT, NO_TIMEOUT = aiohttp.ClientTimeout(total=30), aiohttp.ClientTimeout(total=None)
UNREACHABLE = ("127.0.0.1", 1)
"""Replaces an address that no node of the lab has: nothing outside loopback is ever dialled."""
RETRY = 0.1
"""Real seconds between two attempts while the API is not ready."""
BAD_REQUEST = 400
FAILED = (ApiError, OSError, aiohttp.ClientError, TimeoutError)
"""What a request may raise."""
LAB_USERS = ("fluobook:lab", "system:")
"""Users of the lab itself and of the cluster's own parts; operators have others."""


class Api:
    """A client of the Kubernetes API with one identity.

    Args:
        url: of the API, with its real address.
        authority: PEM of the certificate authority that signed the API's certificate.
        identity: client certificate.
        token: bearer token, instead of a certificate.
        address: host and port where the lab serves that URL.
    """

    def __init__(
        self,
        url: str,
        authority: str,
        *,
        identity: KeyPair | None = None,
        token: str = "",
        address: tuple[str, int] | None = None,
    ) -> None:
        self._context = ssl.create_default_context(cadata=authority)
        if identity:
            pki.load_identity(self._context, identity)
        self._name = url.removeprefix("https://").rpartition(":")[0]
        self._base = f"https://{address[0]}:{address[1]}" if address else url
        self._headers = {"Accept": JSON_TYPE, "User-Agent": "fluobook-lab"}
        self._headers |= {"Authorization": f"Bearer {token}"} if token else {}
        self._unreachable = address == UNREACHABLE
        self._session: aiohttp.ClientSession | None = None
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    async def get(self, path: str, **query: str) -> Obj:
        """Read.

        Raises:
            ApiError: refused.
            OSError: not reachable.
        """
        return await self.send("GET", path, query=query)

    async def send(
        self, method: str, path: str, body: Any = None, *, media: str = JSON_TYPE, query: dict[str, str] | None = None
    ) -> Obj:
        """One request and its response.

        Raises:
            ApiError: refused.
            OSError: not reachable; also for a certificate that does not match.
        """
        text = await self.text(method, path, body, media=media, query=query)
        return dict(json.loads(text)) if text.startswith("{") else {"message": text}

    async def text(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        media: str = JSON_TYPE,
        query: dict[str, str] | None = None,
        accept: str = JSON_TYPE,
    ) -> str:
        """As `send`, with the response as text: of a watch with an end, one line per event."""
        if self._unreachable:
            raise OSError(f"dial tcp {self._name}: connect: no route to host")
        data = json.dumps(body) if body is not None else None
        headers = {**self._headers, "Content-Type": media, "Accept": accept}
        async with self._client().request(
            method, self._base + path, data=data, headers=headers, params=query or {}, server_hostname=self._name
        ) as response:
            text = await response.text()
        if response.status >= BAD_REQUEST:
            status: Obj = json.loads(text) if text.startswith("{") else {"message": text}
            raise ApiError(
                response.status, status.get("reason", ""), status.get("message", text), status.get("details")
            )
        return text

    async def watch(self, path: str, revision: str) -> AsyncIterator[Obj]:
        """Events of a list path after a revision, until the server ends the watch.

        Raises:
            ApiError: refused; 410 when the revision is too old.
            OSError: the connection broke.
        """
        query = {"watch": "true", "resourceVersion": revision, "allowWatchBookmarks": "true"}
        async with self._client().get(
            self._base + path, headers=self._headers, params=query, server_hostname=self._name, timeout=NO_TIMEOUT
        ) as response:
            if response.status >= BAD_REQUEST:
                raise ApiError(response.status, "", await response.text())
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for event in map(json.loads, lines):
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
                    yield event

    async def path(self, api_version: str, kind: str, namespace: str = "") -> str:
        """The path of the list of a kind's objects.

        Raises:
            ApiError: 404, the kind is not served.
            OSError: not reachable.
        """
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        if (api_version, kind) not in self._plurals:
            served = await self.get(root)
            for entry in served["resources"]:
                if "/" not in entry["name"]:
                    self._plurals[(api_version, entry["kind"])] = (entry["name"], entry["namespaced"])
        if (api_version, kind) not in self._plurals:
            raise ApiError(404, "NotFound", f"{kind} of {api_version} is not served")
        plural, namespaced = self._plurals[(api_version, kind)]
        return f"{root}/namespaces/{namespace or 'default'}/{plural}" if namespaced else f"{root}/{plural}"

    async def apply(self, obj: Obj, *, manager: str) -> Obj:
        """Server-side apply, with force.

        Raises:
            ApiError: refused.
            OSError: not reachable.
        """
        metadata = obj["metadata"]
        path = await self.path(obj["apiVersion"], obj["kind"], metadata.get("namespace", ""))
        query = {"fieldManager": manager, "force": "true"}
        return await self.send("PATCH", f"{path}/{metadata['name']}", obj, media=APPLY, query=query)

    async def create(self, path: str, obj: Obj) -> Obj | None:
        """Create an object; None if it exists.

        Raises:
            ApiError: refused.
            OSError: not reachable.
        """
        try:
            return await self.send("POST", path, obj)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            return None

    async def wait_for(self, path: str, *, interval: float = RETRY) -> Obj:
        """Read until it succeeds."""
        while True:
            try:
                return await self.get(path)
            except FAILED:
                await asyncio.sleep(interval)

    async def close(self) -> None:
        """Close its connections."""
        if self._session:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=64)
            self._session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT)
        return self._session


def audited_requests(logs: Iterable[Path], clock: Clock) -> list[Request]:
    """The requests of people and their programs in audit logs, in the order of the lab's time."""
    requests = []
    for line in (line for log in logs if log.exists() for line in log.read_text().splitlines()):
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the line that is being written
        user = str((event.get("user") or {}).get("username") or "")
        if event.get("stage") == "ResponseComplete" and not user.startswith(LAB_USERS):
            requests.append(_request(event, clock))
    return sorted(requests, key=lambda request: request.time)


def _request(event: dict[str, Any], clock: Clock) -> Request:
    time = dt.datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
    status = int((event.get("responseStatus") or {}).get("code") or 0)
    path, verb = event["requestURI"].partition("?")[0], event["verb"]
    reads = verb in {"get", "list", "watch"} or "dryRun=" in event["requestURI"] or path.endswith("reviews")
    return Request(clock.at(time), verb.upper(), path, status, not reads, str(event.get("userAgent") or ""))
