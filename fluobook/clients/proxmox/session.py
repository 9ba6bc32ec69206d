"""Calls to one Proxmox VE endpoint: connections, verification, repetition, and errors of ours for its answers.

Proxmox VE answers 500 to almost everything, so the text decides which error it is. The texts are those of versions 8
and 9 and of their storage tools.
"""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from proxmoxer import ProxmoxAPI
from proxmoxer.core import ResourceException

from fluobook.clients.https import CONNECT_TIMEOUT, READ_TIMEOUT, Target, TargetAdapter, open_adapter, unreachable
from fluobook.clients.proxmox.privileges import Need, grant_commands
from fluobook.errors import (
    AccessDenied,
    Conflict,
    FluobookError,
    NotFound,
    OutsideError,
    Rejected,
    TaskFailed,
    Unreachable,
    UsageError,
)
from fluobook.waiting import retry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.clients.proxmox.tasks import Upid

SYSTEM = "proxmox"
DEFAULT_PORT = 8006
RETRY_AFTER = (0.2, 0.5, 1.0)
"""Seconds before each repetition of a call that may be made twice."""
THREADS = 64
"""Connections that are kept."""
NO_ANSWER = frozenset({502, 503, 504, 595, 596, 597, 598, 599})
"""Codes for a node that cannot be reached or that ended the connection; 595 to 599 are Proxmox VE's own."""

_LOCKED = re.compile(r"is locked \((?P<lock>[\w-]+)\)")
_BUSY = re.compile(r"can't lock file '(?P<file>[^']+)'")
_PERMISSION = re.compile(r"Permission check failed \((?P<path>/[^,)]*), (?P<privileges>[^)]+)\)")
_CONFLICT = re.compile(
    r"checksum mis+match|detected modified configuration|already exists|config file already", re.IGNORECASE
)
_ABSENT = re.compile(r"does not exist|no such|hostname lookup .* failed|not found", re.IGNORECASE)
_PERMANENT = re.compile(
    r"free space|no space left|not enough space|reached threshold|content[- ]type|does not support vm images"
    r"|file extension|allowed extension|wrong checksum|refusing to override|requires special syntax|unable to parse"
    r"|invalid privilege|guest agent|destroy failed|only root can set|is protected|protection mode|no quorum"
    r"|cluster not ready|download failed|invalid server response|(could not|unable to) resolve",
    re.IGNORECASE,
)
"""Texts of a 500 that the same call gets again."""

# Both log the data they send, on levels that a debugging session would enable.
for _name in ("proxmoxer.core", "proxmoxer.backends.https"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True)
class ProxmoxEndpoint:
    """A Proxmox VE host or cluster behind one URL.

    Args:
        name: its name in the params.
        url: `https://host[:port]`; the certificate must be for this host.
        address: the (host, port) to connect to instead, or None.
        token_id: `user@realm!tokenid`.
        token_secret: the token's secret; never shown.
        ca_file: PEM file of the authorities to trust, or None.
        fingerprint: SHA-256 of the certificate, or None. With neither, the system's authorities decide.

    Raises:
        UsageError: the URL or the token id is malformed.
    """

    name: str
    url: str
    token_id: str
    token_secret: str = field(repr=False)
    address: tuple[str, int] | None = None
    ca_file: str | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname:
            raise UsageError(f"{self.url!r} is not a URL of Proxmox VE", remedy="write it as https://host:8006")
        if not all(self.token):
            raise UsageError(
                f"{self.token_id!r} is not the id of a Proxmox VE token", remedy="write it as user@realm!tokenid"
            )

    @property
    def target(self) -> Target:
        """Where to connect, and what to verify."""
        parts = urlsplit(self.url)
        return Target(
            parts.hostname or "",
            parts.port or DEFAULT_PORT,
            address=self.address,
            ca_file=self.ca_file,
            fingerprint=self.fingerprint,
        )

    @property
    def token(self) -> tuple[str, str]:
        """The user (`user@realm`) and the token's own name."""
        user, _, name = self.token_id.partition("!")
        return user if "@" in user else "", name


class VmLocked(Conflict):
    """Another task works on the VM; `lock` names its kind: backup, create, migrate, snapshot."""

    def __init__(self, message: str, *, lock: str, detail: str = "", code: str = "", **facts: str) -> None:
        super().__init__(message, system=SYSTEM, detail=detail, code=code, facts={"lock": lock, **facts})
        self.lock = lock


class Session:
    """Calls to one endpoint, from any thread: one proxmoxer session a thread over one pool of connections."""

    def __init__(self, endpoint: ProxmoxEndpoint) -> None:
        self.endpoint = endpoint
        self._local = threading.local()
        self._adapter: TargetAdapter | None = None
        self._lock = threading.Lock()

    def get(self, path: str, /, *, doing: str, needs: tuple[Need, ...] = (), **params: Any) -> Any:
        """GET, repeated while the error is transient. See `once` for the arguments."""
        return self.repeat("GET", path, doing=doing, needs=needs, **params)

    def repeat(self, method: str, path: str, /, *, doing: str, needs: tuple[Need, ...] = (), **params: Any) -> Any:
        """A call that may be made twice, repeated while the error is transient. See `once`."""
        return retry(
            lambda: self.once(method, path, doing=doing, needs=needs, **params),
            if_error=is_transient,
            pauses=RETRY_AFTER,
        )

    def once(self, method: str, path: str, /, *, doing: str, needs: tuple[Need, ...] = (), **params: Any) -> Any:
        """One call, never repeated.

        Args:
            method: GET, POST, PUT or DELETE.
            path: below /api2/json, such as `cluster/resources`.
            doing: what is tried, for messages: "read the version".
            needs: the privileges it needs, for messages.
            params: what is sent; None is left out, booleans become 1 and 0.

        Returns:
            The answer's `data`.

        Raises:
            Unreachable, AccessDenied, NotFound, Conflict, Rejected, OutsideError: see `refusal`.
        """
        sent = {key: int(value) if isinstance(value, bool) else value for key, value in params.items()}
        target, name = self.endpoint.target, f"Proxmox VE {self.endpoint.name}"
        facts = self._facts(path, params)
        try:
            data = getattr(self._api()(path), method.lower())(**sent)
        except ResourceException as error:
            wrong = error.errors if isinstance(error.errors, dict) else {}
            text = str(error.content or "")
            endpoint = self.endpoint
            raise refusal(
                error.status_code, text, wrong, doing=doing, endpoint=endpoint, needs=needs, facts=facts
            ) from None
        except (requests.RequestException, OSError) as error:
            raise unreachable(error, target, system=SYSTEM, name=name, doing=doing, facts=facts) from None
        if isinstance(data, dict) and isinstance(data.get("errors"), bytes):
            text = data["errors"][:200].decode(errors="replace")
            message = f"what answers at {target.name} is not Proxmox VE"
            raise Unreachable(message, system=SYSTEM, detail=text, code="FOREIGN", facts=facts)
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
        with self._lock:
            # All threads share one pool: threads come and go with each stage, and TLS handshakes are expensive.
            self._adapter = self._adapter or open_adapter(
                target, threads=THREADS, system=SYSTEM, name=self.endpoint.name
            )
            adapter = self._adapter
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
        session.mount("https://", adapter)
        return api

    def _facts(self, path: str, params: Mapping[str, Any]) -> dict[str, str]:
        """Values for the catalogue's commands."""
        found = dict(re.findall(r"(nodes|storage|qemu)/([^/]+)", path))
        names = {"node": found.get("nodes"), "storage": found.get("storage"), "vmid": found.get("qemu")}
        names |= {key: params[key] for key in ("vmid", "url") if params.get(key)}
        facts = {"url": self.endpoint.url, "token": self.endpoint.token_id, "user": self.endpoint.token[0], **names}
        return {key: str(value) for key, value in facts.items() if value}


def is_transient(error: FluobookError) -> bool:
    """Whether the same call may succeed a moment later: no connection, no answer, or a 5xx with no permanent cause.

    Says nothing about whether a call that changes something was carried out.
    """
    if isinstance(error, Unreachable):
        return error.code == "connection" or error.code.isdigit()
    return type(error) is OutsideError


def refusal(
    status: int,
    text: str,
    errors: Mapping[str, Any],
    *,
    doing: str,
    endpoint: ProxmoxEndpoint,
    needs: tuple[Need, ...] = (),
    facts: Mapping[str, str] | None = None,
) -> OutsideError:
    """The error for an answer of Proxmox VE that is not a 2xx.

    Args:
        status: the HTTP status, or one of Proxmox VE's own 595 to 599.
        text: the reason phrase, which contains the message.
        errors: the wrong parameters and what is wrong with each.
        doing: what was tried, such as "create VM 110 on pve1".
        endpoint: the endpoint that answered.
        needs: the privileges that the call needs, in case the answer does not name them.
        facts: values for the catalogue's commands.
    """
    wrong = "".join(f" {name}: {' '.join(str(problem).split())};" for name, problem in errors.items()).rstrip(";")
    message = f"Proxmox VE {endpoint.name} refused to {doing}: {text.strip() or status}{wrong}"
    detail = "\n".join([f"{status} {text}".strip(), *(f"{key}: {value}" for key, value in errors.items())])
    given: dict[str, Any] = {"system": SYSTEM, "detail": detail, "code": str(status), "facts": facts}
    if status == HTTPStatus.UNAUTHORIZED:
        return AccessDenied(f"Proxmox VE {endpoint.name} does not accept the token {endpoint.token_id}", **given)
    if status == HTTPStatus.FORBIDDEN:
        return _missing_privileges(message, text, needs, endpoint.token_id, given)
    if lock := lock_of(detail):
        return VmLocked(message, lock=lock, detail=detail, code=str(status), **(facts or {}))
    if status in NO_ANSWER:
        reason = text.strip() or "the node did not answer"
        return Unreachable(f"Proxmox VE {endpoint.name} could not {doing}: {reason} ({status})", **given)
    kind: type[OutsideError] = OutsideError
    if _CONFLICT.search(detail):
        kind = Conflict
    elif status == HTTPStatus.NOT_FOUND or _ABSENT.search(detail):
        kind = NotFound
    elif status < HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.NOT_IMPLEMENTED or _PERMANENT.search(detail):
        kind = Rejected
    return kind(message, **given)


def lock_of(text: str) -> str:
    """The name of the lock that a text complains of: `backup`, `create`…, `config file`; "" if none."""
    if match := _LOCKED.search(text):
        return match["lock"]
    return "config file" if _BUSY.search(text) else ""


def task_failure(upid: Upid, exit_text: str, log: tuple[str, ...]) -> OutsideError:
    """The error for a task that failed; its log's tail is the detail."""
    message = f"task {upid.type} {upid.id} on {upid.node} failed: {exit_text}"
    detail = "\n".join(log)
    facts = {"upid": str(upid), "node": upid.node, **({"vmid": upid.id} if upid.id.isdigit() else {})}
    if lock := lock_of(exit_text):
        return VmLocked(message, lock=lock, detail=detail, **facts)
    return TaskFailed(message, system=SYSTEM, detail=detail or exit_text, code=str(upid), facts=facts)


def _missing_privileges(
    message: str, text: str, needs: tuple[Need, ...], token: str, given: dict[str, Any]
) -> AccessDenied:
    """Names the privileges and the commands that grant them; the catalogue cannot know either."""
    if match := _PERMISSION.search(text):
        path = re.sub(r"^/vms/\d+$", "/vms", match["path"])  # for all VMs: most do not exist when the token is created
        needs = tuple(Need(path, privilege) for privilege in re.split(r"[|,\s]+", match["privileges"]))
    names = ", ".join(f"{need.privilege} on {need.path}" for need in needs)
    commands = " && ".join(f"({line})" for line in grant_commands(needs, token))
    return AccessDenied(
        message,
        cause=f"the token {token} lacks {names or 'a privilege'}; a separated token has no privileges of its own",
        remedy=f"as root on the host: {commands}"
        if needs
        else "run 00_preflight: it lists every missing privilege and the commands that grant it",
        **given,
    )
