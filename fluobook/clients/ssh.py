"""Scripts on Proxmox VE hosts, over the operator's own `ssh`: his configuration, agent and known hosts decide."""

from __future__ import annotations

from fluobook.clients import answers
from fluobook.clients.tools import run_tool
from fluobook.errors import AccessDenied, ToolFailed, Unreachable

SYSTEM = "ssh"
_FAILED = "255"
"""The exit code of ssh itself; others are the script's."""
_OPTIONS = ("-T", "-oBatchMode=yes", "-oConnectTimeout=15")


def run_script(program: str, destination: str, script: str, *, deadline: float) -> str:
    """Run a script with `sh` on a host; it goes over standard input, so no argument list shows it.

    Args:
        program: what connects: "ssh".
        destination: [user@]host, or a Host of the operator's configuration.
        script: the script.
        deadline: seconds for all of it.

    Returns:
        What the script wrote to standard output.

    Raises:
        AccessDenied: the host does not accept the operator's key, or its own key is not the known one.
        Unreachable: no connection.
        ToolFailed: ssh is missing, or the script failed; the detail is the end of its standard error.
        DeadlineExceeded: it took longer than `deadline`.
    """
    command = [program, *_OPTIONS, "--", destination, "sh"]
    try:
        return run_tool(SYSTEM, command, stdin=script, deadline=deadline).stdout
    except ToolFailed as error:
        try_it = f"`ssh {destination} true` must work without a question"
        if error.code == _FAILED:
            code, kind = answers.tool_failure(error.detail)
            kind = AccessDenied if kind is AccessDenied or "denied" in error.detail.lower() else Unreachable
            message, remedy = f"ssh does not reach {destination}", f"{try_it}; correct wireguard.hosts[].ssh if not"
            raise kind(message, system=SYSTEM, detail=error.detail, code=code or _FAILED, remedy=remedy) from None
        if error.code == "MISSING":
            raise
        raise ToolFailed(
            f"the script of stage host-network failed on {destination}",
            system=SYSTEM,
            detail=error.detail,
            code=error.code,
            remedy=f"fix what it reports on the host, then run the stage again; {try_it}",
        ) from None
