"""git: what a remote's branch stands at, and what of a working tree is tracked."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.clients.run_tool import run_tool
from fluobook.clients.tools import find
from fluobook.errors import AccessDenied, NotFound, OutsideError, ToolFailed, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE = 60.0
SHA = re.compile(r"[0-9a-f]{40}")


def ls_remote(
    url: str, revision: str = "HEAD", *, ca_file: Path | None = None, username: str = "", password: str = ""
) -> str:
    """The commit that a branch or tag of a remote stands at, as Argo CD would resolve it.

    Args:
        url: the repository; http(s), ssh or a path.
        revision: a branch, a tag or "HEAD"; a full commit id is returned as it is.
        ca_file: CA certificates for https, instead of the system's.
        username: for https, with
        password: the token; both travel by environment.

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
        told = run_tool("git", [find("git").path, "ls-remote", url], env=env, deadline=DEADLINE).stdout
    except ToolFailed as error:
        raise _explained(error, url) from error
    refs = {name: sha for sha, _, name in (line.partition("\t") for line in told.splitlines())}
    for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}"):
        if name in refs:
            return refs[name]
    branches = ", ".join(sorted(name.removeprefix("refs/heads/") for name in refs if name.startswith("refs/heads/")))
    raise NotFound(
        f"{url} has no branch or tag {revision!r}", system="git", cause=f"its branches are {branches or 'none yet'}",
        remedy="correct platform.gitops.revision, or push the branch",
    )  # fmt: skip


def root(folder: Path) -> Path:
    """The top of the working tree that a folder lies in.

    Raises:
        NotFound: it lies in none.
    """
    try:
        told = _git(folder, "rev-parse", "--show-toplevel")
    except ToolFailed as error:
        raise NotFound(
            f"{folder} is not in a git repository",
            system="git",
            detail=error.detail,
            remedy="work in a clone of the repository",
        ) from error
    return Path(told.strip())


def tracked(folder: Path, paths: Sequence[str] = ()) -> list[Path]:
    """The files below a folder that git tracks, as absolute paths, in order.

    Args:
        folder: any folder of a working tree.
        paths: pathspecs relative to it; none means all below it.
    """
    told = _git(folder, "ls-files", "-z", "--", *paths)
    return sorted(folder / name for name in told.split("\0") if name)


def is_tracked(path: Path) -> bool:
    """Whether git tracks this very file: a secret in clear must never be. False outside of any working tree."""
    try:
        return bool(_git(path.parent, "ls-files", "-z", "--", path.name))
    except ToolFailed:
        return False


def is_ignored(path: Path) -> bool:
    """Whether git ignores the file; a secret in clear inside a working tree should be."""
    try:
        _git(path.parent, "check-ignore", "-q", "--", path.name)
    except ToolFailed:
        return False
    return True


def head(folder: Path) -> str:
    """The commit that the working tree stands at, "" when there is none."""
    try:
        return _git(folder, "rev-parse", "HEAD").strip()
    except ToolFailed:
        return ""


def changed(folder: Path, paths: Sequence[str] = ()) -> list[str]:
    """Files below the folder that differ from the commit or are new: what Argo CD will not see."""
    told = _git(folder, "status", "--porcelain", "-z", "--", *paths)
    return [line[3:] for line in told.split("\0") if line[3:]]


def _git(folder: Path, *arguments: str) -> str:
    return run_tool("git", [find("git").path, *arguments], cwd=folder, deadline=DEADLINE).stdout


def _config(ca_file: Path | None, username: str, password: str) -> dict[str, str]:
    """Settings by environment, since arguments are there for all to read."""
    settings = {"http.sslCAInfo": str(ca_file)} if ca_file else {}
    if password:
        token = base64.b64encode(f"{username or 'git'}:{password}".encode()).decode()
        settings["http.extraHeader"] = f"Authorization: Basic {token}"
    env = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env


def _explained(error: ToolFailed, url: str) -> OutsideError:
    """What git's words mean; its exit code is always 128."""
    told: dict[str, Any] = {"system": "git", "detail": error.detail, "code": error.code}
    words = error.detail.lower()
    if (
        "authentication failed" in words
        or "could not read username" in words
        or "permission denied" in words
        or "403" in words
    ):
        return AccessDenied(f"{url} refuses to be read", remedy="check the repository's credentials", **told)
    if "not found" in words or "does not appear to be a git repository" in words or "does not exist" in words:
        return NotFound(f"there is no git repository {url}", remedy="correct platform.gitops.repository", **told)
    if "certificate" in words:
        remedy = "name the CA's file under platform.trust"
        return Unreachable(f"the TLS certificate of {url} is not trusted", remedy=remedy, **told)
    if "could not resolve" in words or "connect" in words or "timed out" in words:
        return Unreachable(f"{url} does not answer", remedy="check the network, or set platform.gitops.mirrors", **told)
    return error
