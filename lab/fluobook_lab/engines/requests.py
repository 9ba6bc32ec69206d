"""How the lab's own parts talk to the real API server: as JSON over TLS, with whatever identity they have."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp

from fluobook.machine import pki
from fluobook_lab.kube.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fluobook.machine.pki import KeyPair
    from fluobook_lab.kube.objects import Obj

MERGE, APPLY, JSON_TYPE = "application/merge-patch+json", "application/apply-patch+yaml", "application/json"
DEADLINE = aiohttp.ClientTimeout(total=30)
NOBODY = ("127.0.0.1", 1)
"""The place of an address that no node of the lab has: nothing outside loopback is ever dialled."""
RETRY = 0.1
"""Real seconds between two tries while the API is not there."""


class Api:
    """A client of the Kubernetes API with one identity.

    Args:
        url: of the API, at its real address.
        authority: PEM of the authority that its certificate must come from.
        identity: client certificate.
        token: bearer token, instead.
        place: host and port where that address is reached.
    """

    def __init__(
        self,
        url: str,
        authority: str,
        *,
        identity: KeyPair | None = None,
        token: str = "",
        place: tuple[str, int] | None = None,
    ) -> None:
        self._context = ssl.create_default_context(cadata=authority)
        if identity:
            pki.load_identity(self._context, identity)
        host, _, port = url.removeprefix("https://").rpartition(":")
        self._name = host
        self._base = f"https://{place[0]}:{place[1]}" if place else f"https://{host}:{port}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._nobody = place == NOBODY
        self._session: aiohttp.ClientSession | None = None
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    async def get(self, path: str, **query: str) -> Obj:
        """Read.

        Raises:
            ApiError: refused.
            OSError: not reached.
        """
        return await self.send("GET", path, query=query)

    async def send(
        self, method: str, path: str, body: Any = None, *, media: str = JSON_TYPE, query: dict[str, str] | None = None
    ) -> Obj:
        """One request and its answer.

        Raises:
            ApiError: refused.
            OSError: not reached; a certificate that does not fit counts as that.
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
        """As `send`, the answer as it comes: of a watch with an end, a line each."""
        if self._nobody:
            raise OSError(f"dial tcp {self._name}: connect: no route to host")
        data = json.dumps(body) if body is not None else None
        headers = {**self._headers, "Content-Type": media, "Accept": accept, "User-Agent": "fluobook-lab"}
        async with self._open().request(
            method, self._base + path, data=data, headers=headers, params=query or {}, server_hostname=self._name
        ) as answer:
            text = await answer.text()
        if answer.status >= 400:  # noqa: PLR2004 (HTTP's own)
            told: Obj = json.loads(text) if text.startswith("{") else {"message": text}
            raise ApiError(answer.status, told.get("reason", ""), told.get("message", text), told.get("details"))
        return text

    async def watch(self, path: str, revision: str) -> AsyncIterator[Obj]:
        """Events of a list path after a revision, until the server ends the watch.

        Raises:
            ApiError: refused; 410 when the revision is too old.
            OSError: the connection broke.
        """
        query = {"watch": "true", "resourceVersion": revision, "allowWatchBookmarks": "true"}
        headers = {**self._headers, "Accept": JSON_TYPE, "User-Agent": "fluobook-lab"}
        forever = aiohttp.ClientTimeout(total=None)
        async with self._open().get(
            self._base + path, headers=headers, params=query, server_hostname=self._name, timeout=forever
        ) as answer:
            if answer.status >= 400:  # noqa: PLR2004
                raise ApiError(answer.status, "", await answer.text())
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield _event(json.loads(line))

    async def path(self, api_version: str, kind: str, namespace: str = "") -> str:
        """Where objects of a kind are listed.

        Raises:
            ApiError: 404, the kind is not served.
            OSError: not reached.
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
            OSError: not reached.
        """
        metadata = obj["metadata"]
        path = await self.path(obj["apiVersion"], obj["kind"], metadata.get("namespace", ""))
        query = {"fieldManager": manager, "force": "true"}
        return await self.send("PATCH", f"{path}/{metadata['name']}", obj, media=APPLY, query=query)

    async def until_answered(self, path: str) -> Obj:
        """Ask again and again until there is an answer that is no refusal."""
        while True:
            try:
                return await self.get(path)
            except (OSError, aiohttp.ClientError, ApiError, TimeoutError):
                await asyncio.sleep(RETRY)

    async def close(self) -> None:
        """End its connections."""
        if self._session:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=64)
            self._session = aiohttp.ClientSession(connector=connector, timeout=DEADLINE)
        return self._session


def _event(event: Obj) -> Obj:
    if event["type"] == "ERROR":
        told = event["object"]
        raise ApiError(told.get("code", 500), told.get("reason", ""), told.get("message", ""))
    return event
