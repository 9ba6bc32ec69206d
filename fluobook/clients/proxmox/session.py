"""One proxmoxer session a thread over one pool of connections; here calls are made, repeated and translated."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import requests
from proxmoxer import ProxmoxAPI
from proxmoxer.core import ResourceException

from fluobook.clients.https import CONNECT_TIMEOUT, READ_TIMEOUT, TargetAdapter, fingerprint_seen
from fluobook.clients.proxmox.failures import SYSTEM, may_help_to_repeat, refusal
from fluobook.errors import OutsideError, Unreachable

if TYPE_CHECKING:
    from fluobook.clients.proxmox.endpoint import ProxmoxEndpoint
    from fluobook.clients.proxmox.privileges import Need

RETRY_AFTER = (0.2, 0.5, 1.0)
"""Seconds to wait before each repetition of a call that may be repeated."""

THREADS = 64
"""Connections that are kept."""

# Both log the data they send, on levels that a debugging session would switch on.
for _name in ("proxmoxer.core", "proxmoxer.backends.https"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Session:
    """Calls to one endpoint, from any thread."""

    def __init__(self, endpoint: ProxmoxEndpoint) -> None:
        self.endpoint = endpoint
        self._local = threading.local()
        self._adapter: TargetAdapter | None = None
        self._lock = threading.Lock()

    def get(self, path: str, /, *, doing: str, needs: tuple[Need, ...] = (), **params: Any) -> Any:
        """GET, repeated while the answer is transient. See `once` for the arguments."""
        return self.repeat("GET", path, doing=doing, needs=needs, **params)

    def repeat(self, method: str, path: str, /, *, doing: str, needs: tuple[Need, ...] = (), **params: Any) -> Any:
        """A call that may be made twice, repeated while the answer is transient. See `once`."""
        for pause in RETRY_AFTER:
            try:
                return self.once(method, path, doing=doing, needs=needs, **params)
            except OutsideError as error:
                if not may_help_to_repeat(error):
                    raise
            time.sleep(pause)
        return self.once(method, path, doing=doing, needs=needs, **params)

    def once(self, method: str, path: str, /, *, doing: str, needs: tuple[Need, ...] = (), **params: Any) -> Any:
        """One call, never repeated.

        Args:
            method: GET, POST, PUT or DELETE.
            path: below /api2/json, such as `cluster/nextid`.
            doing: what is tried, for messages: "read the version".
            needs: the privileges it needs, for messages.
            params: what is sent; None is left out, booleans become 1 and 0.

        Returns:
            What stands under `data`.

        Raises:
            Unreachable, AccessDenied, NotFound, Conflict, Rejected, OutsideError: as `failures.refusal` has it.
        """
        sent = {key: int(value) if isinstance(value, bool) else value for key, value in params.items()}
        try:
            data = getattr(self._api()(path), method.lower())(**sent)
        except ResourceException as error:
            raise self._refusal(error, doing, needs) from None
        except (requests.RequestException, OSError) as error:
            raise self._unreachable(error, doing) from None
        if isinstance(data, dict) and isinstance(data.get("errors"), bytes):
            raise Unreachable(
                f"what answers at {self.endpoint.target.name} is not Proxmox VE",
                system=SYSTEM,
                detail=data["errors"][:200].decode(errors="replace"),
                remedy=f"check the url of {self.endpoint.name} in the params",
            )
        return data

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        with self._lock:
            adapter, self._adapter, self._local = self._adapter, None, threading.local()
        if adapter:
            adapter.close()

    def _api(self) -> ProxmoxAPI:
        if not hasattr(self._local, "api"):
            self._local.api = self._connect()
        return self._local.api

    def _connect(self) -> ProxmoxAPI:
        user, token = self.endpoint.token
        target = self.endpoint.target
        api = ProxmoxAPI(
            target.host,
            port=target.port,
            user=user,
            token_name=token,
            token_value=self.endpoint.token_secret,
            verify_ssl=target.ca_file or True,
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
        )
        session: requests.Session = api._store["session"]  # noqa: SLF001 - proxmoxer has no other way to its session
        session.mount("https://", self._shared())
        return api

    def _shared(self) -> TargetAdapter:
        """The connections, which all threads use: threads come and go with each stage, TLS handshakes are dear."""
        target = self.endpoint.target
        with self._lock:
            try:
                self._adapter = self._adapter or TargetAdapter(target, threads=THREADS)
            except OSError as error:
                raise Unreachable(
                    f"the CA file {target.ca_file} of {self.endpoint.name} cannot be read: {error.strerror or error}",
                    system=SYSTEM,
                    remedy="copy /etc/pve/pve-root-ca.pem from the host, and name it as ca_file in the params",
                ) from None
            return self._adapter

    def _refusal(self, error: ResourceException, doing: str, needs: tuple[Need, ...]) -> OutsideError:
        wrong = error.errors if isinstance(error.errors, dict) else None
        text = str(error.content or "")
        return refusal(error.status_code, text, wrong, doing=doing, endpoint=self.endpoint, needs=needs)

    def _unreachable(self, error: Exception, doing: str) -> Unreachable:
        target = self.endpoint.target
        if isinstance(error, requests.exceptions.SSLError):
            seen = fingerprint_seen(target)
            return Unreachable(
                f"the certificate of Proxmox VE at {target.name} is not trusted",
                system=SYSTEM,
                detail=f"{error}\nSHA-256 fingerprint seen: {seen or 'none'}",
                cause="its certificate is not signed by the CA file or the system's authorities, "
                "or it is not the one that is pinned",
                remedy="compare the fingerprint with the host's own (pvenode cert info); if it is the same, set it as "
                "`fingerprint` in the params, else something stands between you and the host",
            )
        return Unreachable(
            f"Proxmox VE {self.endpoint.name} does not answer at {target.name}; could not {doing}",
            system=SYSTEM,
            detail=str(error),
            code="timeout" if isinstance(error, requests.Timeout) else "connection",
            cause="the host is down, the address is wrong, or a firewall or VPN is in between",
            remedy=f"try it: curl -k https://{target.name.split(' ')[0]}/; check url and endpoints in the params",
        )
