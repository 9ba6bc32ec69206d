"""What Proxmox VE says when it refuses, turned into our errors with cause and remedy.

It answers 500 to almost everything, so the text decides. The texts are those of PVE 8 and 9 and of its storage tools.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fluobook.clients.proxmox.privileges import Need, grant_commands
from fluobook.errors import AccessDenied, Conflict, NotFound, OutsideError, Rejected, TaskFailed, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.clients.proxmox.endpoint import ProxmoxEndpoint
    from fluobook.clients.proxmox.tasks import Upid

SYSTEM = "proxmox"
NO_ANSWER = frozenset({502, 503, 504, 595, 596, 597, 598, 599})
"""Codes that say that the node asked could not be reached, or broke off; 595 to 599 are Proxmox VE's own."""

_LOCKED = re.compile(r"is locked \((?P<lock>[\w-]+)\)")
_BUSY = re.compile(r"can't lock file '(?P<file>[^']+)'")
_PERMISSION = re.compile(r"Permission check failed \((?P<path>/[^,)]*), (?P<privileges>[^)]+)\)")
_MODIFIED = re.compile(r"checksum mis+match|detected modified configuration", re.IGNORECASE)
_EXISTS = re.compile(r"already exists|config file already")
_ABSENT = re.compile(r"does not exist|no such|hostname lookup .* failed|not found", re.IGNORECASE)

_HINTS: tuple[tuple[str, str, str], ...] = (
    (
        r"free space|No space left|not enough space|reached threshold",
        "the storage is full",
        "free space on it, or set another disk_storage or image_storage in the params",
    ),
    (
        r"content[- ]type|does not support vm images",
        "the storage is not set up for this kind of content",
        "pvesm set STORAGE --content images,iso (keep what it has), or name another storage in the params",
    ),
    (
        r"volume .* does not exist",
        "an image or disk that the VM refers to is not on its storage",
        "run the stage again: it downloads the image first; or look with: pvesm list STORAGE",
    ),
    (
        r"wrong file extension|allowed extension",
        "the name of the file does not fit its content type",
        "use the nocloud .iso image as content iso",
    ),
    (
        r"checksum mismatch|wrong checksum",
        "the file is not the one that was expected",
        "try again; if it happens again, a proxy alters the download",
    ),
    (
        r"refusing to override existing file",
        "somebody downloaded the same image at the same time",
        "run the stage again: it uses the image that is there",
    ),
    (
        r"requires special syntax",
        "a disk that is imported has no size of its own",
        "write STORAGE:0,import-from=SOURCE, then resize it",
    ),
    (
        r"unable to parse (lvm )?volume name",
        "a new disk's size is a number of GiB without a unit",
        "write STORAGE:20, not STORAGE:20G",
    ),
    (
        r"invalid privilege 'VM.Monitor'",
        "Proxmox VE 9 has no VM.Monitor",
        "give the role VM.GuestAgent.Audit instead",
    ),
    (
        r"guest agent is not running|No QEMU guest agent",
        "the image has no qemu-guest-agent extension, or the VM runs since before the agent was switched on",
        "add siderolabs/qemu-guest-agent to the schematic, then stop and start the VM",
    ),
    (
        r"is running - destroy failed",
        "the VM runs",
        "stop it first",
    ),
    (
        r"only root can set",
        "an API token may not set this option, whatever its rights",
        "leave the option out, or set it as root@pam on the host",
    ),
    (
        r"is protected|protection mode",
        "the VM's protection flag is set",
        "qm set VMID --protection 0, if it really is to go",
    ),
    (
        r"no quorum|cluster not ready",
        "the Proxmox VE cluster has lost its quorum",
        "pvecm status on each host; bring the missing hosts back",
    ),
    (
        r"download failed|invalid server response|could not resolve|unable to resolve",
        "the Proxmox VE host cannot fetch the URL",
        "try it on the host: curl -fIL URL; set its DNS, routes or proxy",
    ),
)


class VmLocked(Conflict):
    """A VM is locked by something that is at work on it; `lock` names it: backup, create, migrate, snapshot."""

    def __init__(self, message: str, *, lock: str, detail: str = "", code: str = "") -> None:
        super().__init__(
            message,
            system=SYSTEM,
            detail=detail,
            code=code,
            cause=f"something else is at work on it ({lock})",
            remedy="wait until it is done (the task list shows it); only if nothing runs: qm unlock VMID on the host",
        )
        self.lock = lock


def hint(text: str) -> tuple[str, str]:
    """The likely cause and the remedy for a text of Proxmox VE; ("", "") if it is not a known one."""
    found = ((cause, remedy) for pattern, cause, remedy in _HINTS if re.search(pattern, text, re.IGNORECASE))
    return next(found, ("", ""))


def may_help_to_repeat(error: OutsideError) -> bool:
    """Whether the same call may succeed a moment later: no connection, no answer, or a 5xx without a known text.

    Of a call that changes something it says nothing about whether the change was made.
    """
    if isinstance(error, Unreachable):
        return error.code == "connection" or error.code.isdigit()
    return type(error) is OutsideError


def refusal(
    status: int,
    text: str,
    errors: Mapping[str, Any] | None,
    *,
    doing: str,
    endpoint: ProxmoxEndpoint,
    needs: tuple[Need, ...] = (),
) -> OutsideError:
    """Our error for an answer of Proxmox VE that is none of the 2xx.

    Args:
        status: the HTTP status, or one of Proxmox VE's own 595 to 599.
        text: the reason phrase, where it puts the message.
        errors: the wrong parameters and what is wrong with each.
        doing: what was tried, such as "create VM 110 on pve1".
        endpoint: who answered.
        needs: the privileges the call needs, for when the answer does not say.
    """
    wrong = "; ".join(f"{name}: {' '.join(str(problem).split())}" for name, problem in (errors or {}).items())
    message = f"Proxmox VE {endpoint.name} refused to {doing}: {text.strip() or status}" + (
        f" {wrong}" if wrong else ""
    )
    said = "\n".join([f"{status} {text}".strip(), *(f"{key}: {value}" for key, value in (errors or {}).items())])
    told: dict[str, Any] = {"detail": said, "code": str(status)}
    if status == HTTPStatus.UNAUTHORIZED:
        return _unknown_token(endpoint, told)
    if status == HTTPStatus.FORBIDDEN:
        return _no_rights(message, text, needs, endpoint=endpoint, told=told)
    if locked := lock_of(said):
        return VmLocked(message, lock=locked, detail=said, code=str(status))
    if status in NO_ANSWER:
        return Unreachable(
            f"Proxmox VE {endpoint.name} could not {doing}: {text.strip() or 'the node did not answer'} ({status})",
            system=SYSTEM,
            cause="the node is down or overloaded, or a proxy in between gave up",
            remedy="run it again; if it stays so: systemctl status pveproxy pvedaemon pvestatd on the host",
            **told,
        )
    return _by_text(status, said, message=message, told=told)


def lock_of(text: str) -> str:
    """The name of the lock that a text complains of: `backup`, `create`…, `config file`; "" if none."""
    if found := _LOCKED.search(text):
        return found["lock"]
    return "config file" if _BUSY.search(text) else ""


def task_failure(upid: Upid, exit_text: str, log: tuple[str, ...]) -> OutsideError:
    """Our error for a task that ended in one; its log's tail is the detail."""
    message = f"task {upid.type} {upid.id} on {upid.node} failed: {exit_text}"
    tail = "\n".join(log)
    if locked := lock_of(exit_text):
        return VmLocked(message, lock=locked, detail=tail)
    cause, remedy = hint(f"{exit_text}\n{tail}")
    return TaskFailed(
        message,
        system=SYSTEM,
        detail=tail or exit_text,
        code=str(upid),
        cause=cause,
        remedy=remedy or f"read the whole log: pvenode task log {upid} on {upid.node}, then run the stage again",
    )


def _unknown_token(endpoint: ProxmoxEndpoint, told: dict[str, Any]) -> AccessDenied:
    user, name = endpoint.token
    return AccessDenied(
        f"Proxmox VE {endpoint.name} does not accept the token {endpoint.token_id}",
        system=SYSTEM,
        cause="the token does not exist, has expired, or its secret is another one "
        "(the header is `Authorization: PVEAPIToken=USER@REALM!TOKENID=SECRET`, not Bearer)",
        remedy=f"pveum user token list {user} on the host; make it anew with: pveum user token add {user} {name}, "
        "then put the secret where the params' token_secret points to",
        **told,
    )


def _no_rights(
    message: str, text: str, needs: tuple[Need, ...], *, endpoint: ProxmoxEndpoint, told: dict[str, Any]
) -> AccessDenied:
    if found := _PERMISSION.search(text):
        needs = tuple(Need(_grantable(found["path"]), right) for right in re.split(r"[|,\s]+", found["privileges"]))
    named = ", ".join(f"{need.privilege} on {need.path}" for need in needs)
    return AccessDenied(
        message,
        system=SYSTEM,
        cause=f"the token {endpoint.token_id} lacks {named or 'a privilege'}; a token with privilege separation has "
        "no rights of its own, even if its user is an administrator",
        remedy="as root on the host: " + " && ".join(f"({line})" for line in grant_commands(needs, endpoint.token_id))
        if needs
        else "run 00_preflight: it lists every missing privilege and the commands that grant it",
        **told,
    )


def _grantable(path: str) -> str:
    """Rights on one VM are given to all: the VMs do not exist yet when the token is made."""
    return re.sub(r"^/vms/\d+$", "/vms", path)


def _by_text(status: int, said: str, *, message: str, told: dict[str, Any]) -> OutsideError:
    cause, remedy = hint(said)
    if _MODIFIED.search(said):
        return Conflict(
            message,
            system=SYSTEM,
            cause="somebody else changed the VM since it was read",
            remedy="run the stage again: it plans from what is there now",
            **told,
        )
    if _EXISTS.search(said):
        return Conflict(
            message,
            system=SYSTEM,
            cause="the id or the name is taken",
            remedy="run the stage again: it goes on if the object is ours, and says whose it is if not",
            **told,
        )
    if status == HTTPStatus.NOT_FOUND or _ABSENT.search(said):
        return NotFound(message, system=SYSTEM, cause=cause, remedy=remedy, **told)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.NOT_IMPLEMENTED or cause:
        return Rejected(message, system=SYSTEM, cause=cause, remedy=remedy, **told)
    return OutsideError(message, system=SYSTEM, remedy="run it again; journalctl -u pvedaemon on the host", **told)
