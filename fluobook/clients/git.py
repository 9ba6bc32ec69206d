"""git: the commit of a remote's branch, and the files of a working tree."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.clients.tools import find, run_tool
from fluobook.errors import AccessDenied, NotFound, OutsideError, ToolFailed, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE = 60.0
SHA = re.compile(r"[0-9a-f]{40}")


def ls_remote(
    url: str, revision: str = "HEAD", *, ca_file: Path | None = None, username: str = "", password: str = ""
) -> str:
    """The commit of a remote's branch or tag, as Argo CD resolves it.

    Args:
        url: the repository; http(s), ssh or a path.
        revision: a branch, a tag or "HEAD"; a full commit id is returned as it is.
        ca_file: CA certificates for https, instead of the system's.
        username: for https, with
        password: the token; both are passed by environment.

    Raises:
        NotFound: no such repository, or no such branch or tag in it.
        AccessDenied: the credentials are missing or wrong.
        Unreachable: no connection, or the TLS certificate is not trusted.
        ToolFailed: git failed otherwise.
    """
    if SHA.fullmatch(revision):
        return revision
    env = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes", **_config(ca_file, username, password)}
    try:
        output = run_tool("git", [find("git").path, "ls-remote", url], env=env, deadline=DEADLINE).stdout
    except ToolFailed as error:
        raise _translated(error, url) from error
    refs = {name: sha for sha, _, name in (line.partition("\t") for line in output.splitlines())}
    for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}"):
        if name in refs:
            return refs[name]
    branches = ", ".join(sorted(name.removeprefix("refs/heads/") for name in refs if name.startswith("refs/heads/")))
    raise NotFound(
        f"{url} has no branch or tag {revision!r}",
        system="git",
        cause=f"its branches are {branches or 'none yet'}",
        remedy="correct platform.gitops.revision, or push the branch",
    )


def root(folder: Path) -> Path:
    """The top of the working tree that contains a folder.

    Raises:
        NotFound: there is none.
    """
    try:
        output = _git(folder, "rev-parse", "--show-toplevel")
    except ToolFailed as error:
        raise NotFound(
            f"{folder} is not in a git repository",
            system="git",
            detail=error.detail,
            remedy="work in a clone of the repository",
        ) from error
    return Path(output.strip())


def tracked(folder: Path, paths: Sequence[str] = ()) -> list[Path]:
    """The files below a folder that git tracks, as absolute paths, in order.

    Args:
        folder: any folder of a working tree.
        paths: pathspecs relative to it; none means all below it.
    """
    output = _git(folder, "ls-files", "-z", "--", *paths)
    return sorted(folder / name for name in output.split("\0") if name)


def _git(folder: Path, *arguments: str) -> str:
    return run_tool("git", [find("git").path, *arguments], cwd=folder, deadline=DEADLINE).stdout


def _config(ca_file: Path | None, username: str, password: str) -> dict[str, str]:
    """Settings by environment, since every user can read arguments."""
    settings = {"http.sslCAInfo": str(ca_file)} if ca_file else {}
    if password:
        token = base64.b64encode(f"{username or 'git'}:{password}".encode()).decode()
        settings["http.extraHeader"] = f"Authorization: Basic {token}"
    env = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env


def _translated(error: ToolFailed, url: str) -> OutsideError:
    """The error for git's answer, whose exit code is always 128; unchanged if its text is not known."""
    given: dict[str, Any] = {"system": "git", "detail": error.detail, "facts": {"repository": url}}
    answer = error.detail.lower()

    def mentions(*texts: str) -> bool:
        return any(text in answer for text in texts)

    if mentions("authentication failed", "could not read username", "permission denied", "403"):
        return AccessDenied(f"access to {url} is denied", code=error.code, **given)
    if mentions("not found", "does not appear to be a git repository", "does not exist"):
        return NotFound(f"there is no git repository {url}", code=error.code, **given)
    if mentions("certificate"):
        return Unreachable(f"the TLS certificate of {url} is not trusted", code="CERTIFICATE", **given)
    if mentions("could not resolve", "connect", "timed out"):
        return Unreachable(f"{url} does not answer", code=error.code, **given)
    return error
