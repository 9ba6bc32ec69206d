"""git: the commit of a remote's branch, and the files of a working tree."""

from __future__ import annotations

import base64
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fluobook.clients import answers
from fluobook.clients.https import OVERDUE, PORTS, HttpClient, Target
from fluobook.clients.tools import find, run_tool
from fluobook.errors import DeadlineExceeded, NotFound, OutsideError, ToolFailed, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE = 60.0
SYSTEM = "git"
LARGEST = 16 << 20
"""Bytes of a list of branches and tags."""
SHA = re.compile(r"[0-9a-f]{40}")
REF = re.compile(r"([0-9a-f]{40,64})\t(\S+)")


def ls_remote(
    url: str,
    revision: str = "HEAD",
    *,
    ca_file: Path | None = None,
    username: str = "",
    password: str = "",
    deadline: float = DEADLINE,
) -> str:
    """The commit of a remote's branch or tag, as Argo CD resolves it.

    Args:
        url: the repository; http(s), ssh or a path.
        revision: a branch, a tag or "HEAD"; a full commit id is returned as it is.
        ca_file: CA certificates for https, instead of the system's.
        username: for https, with
        password: the token; both are passed by environment.
        deadline: seconds for the whole of it.

    Raises:
        NotFound: no such repository, or no such branch or tag in it.
        AccessDenied: the credentials are missing or wrong.
        Unreachable: no connection, or the TLS certificate is not trusted.
        InvalidAnswer: a web page or something else answers, or a redirect to another host.
        ToolFailed: git failed otherwise.
    """
    if SHA.fullmatch(revision):
        return revision
    is_http = url.startswith(("https://", "http://"))
    settings = {"http.sslCAInfo": str(ca_file)} if ca_file else {}
    if password:
        settings["http.extraHeader"] = "Authorization: " + _basic(username, password)["Authorization"]
    try:
        # git sends credentials wherever a server redirects it, so it follows only what the check has followed.
        output = _list(url, {**settings, "http.followRedirects": "false"}, deadline)
    except OutsideError as error:
        if not is_http or error.code == OVERDUE:
            raise
        parts = urlsplit(url)
        headers = _basic(username or unquote(parts.username or ""), password or unquote(parts.password or ""))
        _require_git_server(url, ca_file, headers, deadline)
        if error.code != answers.REDIRECT:
            raise
        output = _list(url, settings, deadline)
    url = _public(url)
    refs = {match[2]: match[1] for line in output.splitlines() if (match := REF.fullmatch(line))}
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


def _list(url: str, settings: dict[str, str], deadline: float) -> str:
    """The output of `git ls-remote`."""
    env = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes", "LC_ALL": "C", **_config(settings)}
    shown = _public(url)
    try:
        return run_tool("git", [find("git").path, "ls-remote", "--", url], env=env, deadline=deadline).stdout
    except DeadlineExceeded:
        message = f"{shown} did not answer completely within {deadline:g} s"
        raise Unreachable(message, system=SYSTEM, code=OVERDUE, facts={"repository": shown, "url": shown}) from None
    except ToolFailed as error:
        detail = error.detail.replace(url, shown)
        code, kind = answers.tool_failure(detail)
        if not code:
            raise
        message = _MESSAGES.get(code, "{url} does not answer as a git server should").format(url=shown)
        host = re.sub(r"^.*@|:.*$", "", url) if "://" not in url else urlsplit(url).hostname or ""
        facts = {"repository": shown, "url": shown, "host": host}
        raise kind(message, system=SYSTEM, detail=detail, code=code, facts=facts) from None


def _config(settings: dict[str, str]) -> dict[str, str]:
    """Settings by environment, since every user can read arguments."""
    env = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env


_MESSAGES = {
    "401": "access to {url} is denied",
    "403": "access to {url} is denied",
    "404": "there is no git repository {url}",
    "CERTIFICATE": "the TLS certificate of {url} is not trusted",
    **dict.fromkeys(("DNS", "ECONNREFUSED", "EHOSTUNREACH", "CONNECTION_LOST"), "{url} does not answer"),
}


def _require_git_server(url: str, ca_file: Path | None, headers: dict[str, str], deadline: float) -> None:
    """Ask an http(s) server as git does, for what git's exit code 128 does not say.

    Raises:
        OutsideError: it is not a git server, refuses, or redirects to another host.
    """
    parts, shown = urlsplit(url), _public(url)
    file = str(ca_file) if ca_file else None
    target = Target(parts.hostname or "", parts.port or PORTS[parts.scheme], ca_file=file, scheme=parts.scheme)
    facts = {"repository": shown, "url": shown, "host": target.host}
    secrets = [unquote(parts.password or ""), *(value.partition(" ")[2] for value in headers.values())]
    doing = f"read {shown}"
    with closing(
        HttpClient(
            target,
            system=SYSTEM,
            name="the git server",
            headers=headers,
            secrets=secrets,
            facts=facts,
            deadline=deadline,
        )
    ) as http:
        path = f"{parts.path.rstrip('/')}/info/refs?service=git-upload-pack"
        answer = http.send("GET", path, doing=doing, largest=LARGEST)
        if "git-upload-pack-advertisement" not in answer.headers.get("Content-Type", ""):
            raise http.unparsable(answer.body, doing, ValueError("it is not that of a git server"))


def _basic(username: str, password: str) -> dict[str, str]:
    """The header with the credentials."""
    token = base64.b64encode(f"{username or 'git'}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"} if password else {}


def _public(url: str) -> str:
    """A URL without credentials; a path or an ssh address as it is."""
    return answers.public_url(url) if "://" in url else url
