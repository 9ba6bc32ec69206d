"""Requests to the Kubernetes API through the `kubernetes` package's API client: paths in, JSON out, errors of ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import stamina

from fluobook.clients.kube.connection import CONNECT_SECONDS, READ_SECONDS, Endpoint, api_client
from fluobook.clients.kube.discovery import Discovery, Kind
from fluobook.clients.kube.failures import is_busy, refused, translated

if TYPE_CHECKING:
    from collections.abc import Mapping

ATTEMPTS = 3
"""How often a read is tried where the server is only busy; writes are never repeated by themselves."""
_REFUSAL = 400


class Transport:
    """One cluster, as one user; safe for threads.

    Args:
        at: where it is and who we are.
    """

    def __init__(self, at: Endpoint) -> None:
        self._at = at
        self._client = api_client(at)
        self._discovery = Discovery(lambda path: self.call("GET", path, what="ask which kinds there are"))

    def close(self) -> None:
        """Close idle connections."""
        pools = self._client.rest_client.pool_manager.pools
        for key in pools.keys():  # noqa: SIM118  (no dict; clear() alone would leave them to the garbage collector)
            if (pool := pools.get(key)) is not None:
                pool.close()
        pools.clear()

    def kind(self, api_version: str, kind: str) -> Kind:
        """The kind as the API serves it.

        Raises:
            NotFound: it does not.
            OutsideError: no answer, or a refusal.
        """
        return self._discovery.kind(api_version, kind)

    def call(self, method: str, path: str, query: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
        """A request and the JSON of its answer; `more` as in `raw`.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        if method != "GET":
            return json.loads(self.raw(method, path, query, **more).data)
        for attempt in stamina.retry_context(on=is_busy, attempts=ATTEMPTS, wait_initial=0.2, wait_max=1.0):
            with attempt:
                return json.loads(self.raw(method, path, query, **more).data)
        raise AssertionError  # retry_context raises by itself

    def raw(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        what: str,
        body: dict[str, Any] | None = None,
        media_type: str = "application/json",
        read_seconds: float = READ_SECONDS,
        stream: bool = False,
    ) -> Any:
        """A request and its answer (urllib3's).

        Args:
            method: of HTTP.
            path: begins with "/".
            query: parameters; empty ones are left out.
            what: what is tried, as an infinitive, for errors.
            body: sent as JSON.
            media_type: of the body.
            read_seconds: how long the server may be silent.
            stream: leave the answer open, for the caller to read and close.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        with translated(what, self._at.name):
            request = self._client.param_serialize(
                method,
                path,
                query_params=[(key, value) for key, value in (query or {}).items() if value],
                header_params={"Accept": "application/json", "Content-Type": media_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = self._client.call_api(*request, _request_timeout=(CONNECT_SECONDS, read_seconds)).response
            refusal = answer.status >= _REFUSAL
            if not stream or refusal:
                answer.read(cache_content=True)
            if refusal:
                raise refused(what, answer.status, answer.data)
            return answer
