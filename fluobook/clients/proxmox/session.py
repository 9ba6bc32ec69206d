"""Calls to one Proxmox VE endpoint: connections, verification, repetition, and errors of ours for its answers.

Proxmox VE answers 500 to almost everything, so the text decides which error it is. The texts are those of versions 8
and 9 and of their storage tools.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import responses
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from fluobook import errors
from fluobook.clients import answers, https
from fluobook.clients.proxmox.privileges import Need, grant_commands
from fluobook.clients.proxmox.tasks import Upid

SYSTEM = "proxmox"
DEFAULT_PORT = 8006
WIDTH = 16
"""Calls to one endpoint that stages make at once."""
NO_ANSWER = frozenset({408, 429, 502, 503, 504, 595, 596, 597, 598, 599})
"""Codes for a node that cannot be reached, is busy, or ended the connection; 595 to 599 are Proxmox VE's own."""

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
            raise errors.UsageError(f"{self.url!r} is not a URL of Proxmox VE", remedy="write it as https://host:8006")
        if not all(self.token):
            raise errors.UsageError(
                f"{self.token_id!r} is not the id of a Proxmox VE token", remedy="write it as user@realm!tokenid"
            )

    @property
    def target(self) -> https.Target:
        """Where to connect, and what to verify."""
        parts = urlsplit(self.url)
        return https.Target(
            parts.hostname or "",
            parts.port or DEFAULT_PORT,
            address=self.address,
            ca_file=self.ca_file,
            fingerprint=self.fingerprint,
        )

    @property
    def token(self) -> tuple[str, str]:
        """The user (`user@realm`) and the token's own name."""
        user, _, name = self.token_id.rpartition("!")
        return user if "@" in user else "", name


class VmLocked(errors.Conflict):
    """Another task works on the VM; `lock` names its kind: backup, create, migrate, snapshot."""

    def __init__(self, message: str, *, lock: str, detail: str = "", code: str = "", **facts: str) -> None:
        super().__init__(message, system=SYSTEM, detail=detail, code=code, facts={"lock": lock, **facts})
        self.lock = lock


class Session:
    """Calls to one endpoint, from any thread.

    Args:
        endpoint: where it is, and the token.
        deadline: seconds for a whole call.
    """

    def __init__(self, endpoint: ProxmoxEndpoint, deadline: float | None = None) -> None:
        self.endpoint = endpoint
        user, _, token = endpoint.token_id.partition("!")
        self._facts = {"url": endpoint.url, "token": endpoint.token_id, "user": user}
        self._http = https.HttpClient(
            endpoint.target,
            system=SYSTEM,
            name=f"Proxmox VE {endpoint.name}",
            headers={"Authorization": f"PVEAPIToken={user}!{token}={endpoint.token_secret}"},
            secrets=(endpoint.token_secret,),
            facts=self._facts,
            threads=4 * WIDTH,
            deadline=deadline,
        )
        self.close = self._http.close

    def get(self, path: str, /, *, doing: str, shape: answers.Shape = None, **more: Any) -> Any:
        """GET, repeated while the error is transient. See `call` for the arguments."""
        return self.call("GET", path, doing=doing, shape=shape, repeat=True, **more)

    def call(
        self,
        method: str,
        path: str,
        /,
        *,
        doing: str,
        shape: answers.Shape = None,
        needs: tuple[Need, ...] = (),
        repeat: bool = False,
        **params: Any,
    ) -> Any:
        """One call.

        Args:
            method: GET, POST, PUT or DELETE.
            path: below /api2/json, such as `cluster/resources`.
            doing: what is tried, for messages: "read the version".
            shape: the expected types of `data`.
            needs: the privileges it needs, for messages.
            repeat: it may be made twice, so it is repeated while the error is transient.
            params: what is sent; None is left out, booleans become 1 and 0.

        Returns:
            The answer's `data`.

        Raises:
            Unreachable, InvalidAnswer, AccessDenied, NotFound, Conflict, Rejected, OutsideError: see `refusal`.
        """
        sent = {key: int(value) if isinstance(value, bool) else value for key, value in params.items()}
        form = urlencode({key: value for key, value in sent.items() if value is not None}, doseq=True)
        has_body = method in ("POST", "PUT")
        names = dict(re.findall(r"(nodes|storage|qemu)/([^/]+)", path))
        facts = {"node": names.get("nodes"), "storage": names.get("storage"), "vmid": names.get("qemu")}
        facts |= {key: params[name] for key, name in (("vmid", "vmid"), ("source", "url")) if params.get(name)}
        known = self._facts | {key: str(value) for key, value in facts.items() if value}

        def refuse(answer: https.Answer, doing: str) -> errors.OutsideError:
            if answers.is_html(answer.body):
                return self._http.refused_by_page(answer, doing)
            wrong, message = _refusal_body(answer.body)
            is_specific = answer.reason not in ("", responses.get(answer.status))
            text = answer.reason if is_specific or not message else message
            return refusal(answer.status, text, wrong, doing=doing, endpoint=self.endpoint, needs=needs, facts=known)

        data = self._http.json(
            method,
            "/api2/json/" + quote(path, safe="/:@!") + ("" if has_body or not form else f"?{form}"),
            doing=doing,
            shape={"data": shape},
            body=form.encode() if has_body else None,
            headers={"Content-Type": "application/x-www-form-urlencoded"} if has_body else None,
            repeat_if=https.is_passing if repeat else None,
            refusal=refuse,
        )["data"]
        return _without_nulls(data)

    def unexpected(self, reason: str, doing: str) -> errors.OutsideError:
        """The error for data whose parts do not fit together."""
        return self._http.invalid(answers.UNEXPECTED, f"is not of the expected form: {reason}", doing)


def _without_nulls(data: Any) -> Any:
    """A field that is null is the same as an absent one."""
    if isinstance(data, dict):
        return {key: value for key, value in data.items() if value is not None}
    return [_without_nulls(item) for item in data] if isinstance(data, list) else data


def _refusal_body(body: bytes) -> tuple[dict[str, Any], str]:
    """The wrong parameters and the message in the body of a refusal; both empty if it has none."""
    try:
        content = answers.parse_json(body)
    except ValueError:
        return {}, answers.first_bytes(body)
    if not isinstance(content, dict):
        return {}, answers.first_bytes(body)
    wrong = content.get("errors")
    return wrong if isinstance(wrong, dict) else {}, str(content.get("message") or "").strip()


def refusal(
    status: int,
    text: str,
    problems: Mapping[str, Any],
    *,
    doing: str,
    endpoint: ProxmoxEndpoint,
    needs: tuple[Need, ...] = (),
    facts: Mapping[str, str] | None = None,
) -> errors.OutsideError:
    """The error for an answer of Proxmox VE that is not a 2xx.

    Args:
        status: the HTTP status, or one of Proxmox VE's own 595 to 599.
        text: the reason phrase, which contains the message.
        problems: the wrong parameters and what is wrong with each.
        doing: what was tried, such as "create VM 110 on pve1".
        endpoint: the endpoint that answered.
        needs: the privileges that the call needs, in case the answer does not name them.
        facts: values for the catalogue's commands.
    """
    wrong = "".join(f" {name}: {' '.join(str(problem).split())};" for name, problem in problems.items()).rstrip(";")
    message = f"Proxmox VE {endpoint.name} refused to {doing}: {text.strip() or status}{wrong}"
    detail = "\n".join([f"{status} {text}".strip(), *(f"{key}: {value}" for key, value in problems.items())])
    given: dict[str, Any] = {"system": SYSTEM, "detail": detail, "code": str(status), "facts": facts}
    if status == HTTPStatus.UNAUTHORIZED:
        return errors.AccessDenied(f"Proxmox VE {endpoint.name} does not accept the token {endpoint.token_id}", **given)
    if status == HTTPStatus.FORBIDDEN and "permission" in text.lower():
        return _missing_privileges(message, text, needs, endpoint.token_id, given)
    if status in (HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED):
        return errors.AccessDenied(
            message, cause="a proxy or a firewall refuses: Proxmox VE itself names the privilege", **given
        )
    if lock := lock_of(detail):
        return VmLocked(message, lock=lock, detail=detail, code=str(status), **(facts or {}))
    if status in NO_ANSWER:
        reason = text.strip() or "the node did not answer"
        return errors.Unreachable(f"Proxmox VE {endpoint.name} could not {doing}: {reason} ({status})", **given)
    kind: type[errors.OutsideError] = errors.OutsideError
    if _CONFLICT.search(detail):
        kind = errors.Conflict
    elif status == HTTPStatus.NOT_FOUND or _ABSENT.search(detail):
        kind = errors.NotFound
    elif status < HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.NOT_IMPLEMENTED or _PERMANENT.search(detail):
        kind = errors.Rejected
    return kind(message, **given)


def lock_of(text: str) -> str:
    """The name of the lock that a text complains of: `backup`, `create`…, `config file`; "" if none."""
    if match := _LOCKED.search(text):
        return match["lock"]
    return "config file" if _BUSY.search(text) else ""


def task_failure(upid: Upid, exit_text: str, log: tuple[str, ...]) -> errors.OutsideError:
    """The error for a task that failed; its log's tail is the detail."""
    message = f"task {upid.type} {upid.id} on {upid.node} failed: {exit_text}"
    detail = "\n".join(log)
    facts = {"upid": str(upid), "node": upid.node, **({"vmid": upid.id} if upid.id.isdigit() else {})}
    if lock := lock_of(exit_text):
        return VmLocked(message, lock=lock, detail=detail, **facts)
    return errors.TaskFailed(message, system=SYSTEM, detail=detail or exit_text, code=str(upid), facts=facts)


def _missing_privileges(
    message: str, text: str, needs: tuple[Need, ...], token: str, given: dict[str, Any]
) -> errors.AccessDenied:
    """Names the privileges and the commands that grant them; the catalogue cannot know either."""
    if match := _PERMISSION.search(text):
        path = re.sub(r"^/vms/\d+$", "/vms", match["path"])  # for all VMs: most do not exist when the token is created
        needs = tuple(Need(path, privilege) for privilege in re.split(r"[|,\s]+", match["privileges"]))
    names = ", ".join(f"{need.privilege} on {need.path}" for need in needs)
    commands = " && ".join(f"({line})" for line in grant_commands(needs, token))
    return errors.AccessDenied(
        message,
        cause=f"the token {token} lacks {names or 'a privilege'}; a separated token has no privileges of its own",
        remedy=f"as root on the host: {commands}"
        if needs
        else "run 00_preflight: it lists every missing privilege and the commands that grant it",
        **given,
    )
