"""git: the commit of a remote's branch, and the files of a working tree."""

from __future__ import annotations

import base64
import re
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fluobook.clients import answers
from fluobook.clients.https import OVERDUE, PORTS, HttpClient, Target, is_passing
from fluobook.clients.tools import find, run_tool
from fluobook.errors import (
    AccessDenied,
    DeadlineExceeded,
    FluobookError,
    NotFound,
    OutsideError,
    ToolFailed,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE = 60.0
SYSTEM = "git"
LARGEST = 64 << 20
"""Bytes of a list of branches and tags."""
SHA = re.compile(r"[0-9a-f]{40}")
_PACKETS = re.compile(rb"(0{0,2}|00[0-9a-f]{1,2})$|[0-9a-f]{4}(#|ERR )")
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
        password: the token.
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
    refs = _refs(url, ca_file, username, password, deadline)
    url = _public(url)
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


def tags(url: str, *, ca_file: Path | None = None, deadline: float = DEADLINE) -> list[str]:
    """The names of a remote's tags; raises as `ls_remote` does."""
    names = (name for name in _refs(url, ca_file, "", "", deadline) if name.startswith("refs/tags/"))
    return sorted({name.removeprefix("refs/tags/").removesuffix("^{}") for name in names})


def _refs(url: str, ca_file: Path | None, username: str, password: str, deadline: float) -> dict[str, str]:
    if not url.startswith(("https://", "http://")):
        return _listed(url, None, deadline)
    try:
        return _advertised(url, ca_file, username, password, deadline)
    except (AccessDenied, Unreachable) as error:
        if password or error.code == OVERDUE:
            raise
        try:  # git may have a credential helper, a proxy or another address for this server
            return _listed(url, ca_file, deadline)
        except OutsideError:
            raise error from None


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


def commit_of(folder: Path) -> str:
    """The commit of a working tree, with "-dirty" if tracked files differ from it; "" if there is none."""
    with suppress(FluobookError):
        return _git(folder, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12").strip()
    return ""


def _git(folder: Path, *arguments: str) -> str:
    return run_tool("git", [find("git").path, *arguments], cwd=folder, deadline=DEADLINE).stdout


def _listed(url: str, ca_file: Path | None, deadline: float) -> dict[str, str]:
    """The commits of branches and tags, by git."""
    env = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes", "LC_ALL": "C"}
    env |= {"GIT_SSL_CAINFO": str(ca_file)} if ca_file else {}  # the variable has precedence over http.sslCAInfo
    shown = _public(url)
    command: list[str | Path] = [find("git").path, "-c", "http.followRedirects=false", "ls-remote", "--", url]
    try:
        output = run_tool("git", command, env=env, deadline=deadline).stdout
    except DeadlineExceeded:
        message = f"{shown} did not answer completely within {deadline:g} s"
        raise Unreachable(message, system=SYSTEM, code=OVERDUE, facts={"repository": shown, "url": shown}) from None
    except ToolFailed as error:
        detail = answers.without_credentials(error.detail)
        code, kind = answers.tool_failure(detail)
        if not code and "could not read from remote" in detail.lower():
            code, kind = "401", AccessDenied
        if not code:
            raise
        message = _MESSAGES.get(code, "{url} does not answer as a git server should").format(url=shown)
        host = re.sub(r"^.*@|:.*$", "", url) if "://" not in url else urlsplit(url).hostname or ""
        facts = {"repository": shown, "url": shown, "host": host}
        raise kind(message, system=SYSTEM, detail=detail, code=code, facts=facts) from None
    return {match[2]: match[1] for line in output.splitlines() if (match := REF.fullmatch(line))}


_MESSAGES = {
    "401": "access to {url} is denied",
    "403": "access to {url} is denied",
    "404": "there is no git repository {url}",
    "CERTIFICATE": "the TLS certificate of {url} is not trusted",
    **dict.fromkeys(("DNS", "ECONNREFUSED", "EHOSTUNREACH", "CONNECTION_LOST"), "{url} does not answer"),
}


def _advertised(url: str, ca_file: Path | None, username: str, password: str, deadline: float) -> dict[str, str]:
    """The commits of branches and tags, as an http(s) server lists them (git's smart protocol, version 0).

    git itself takes any page for a repository without branches, follows redirects with the credentials, and reads
    without limit.
    """
    parts, shown = urlsplit(url), _public(url)
    name, secret = username or unquote(parts.username or ""), password or unquote(parts.password or "")
    token = base64.b64encode(f"{name or 'git'}:{secret}".encode()).decode()
    target = Target(
        parts.hostname or "",
        parts.port or PORTS[parts.scheme],
        ca_file=str(ca_file) if ca_file else None,
        scheme=parts.scheme,
    )
    facts = {"repository": shown, "url": shown, "host": target.host}
    http = HttpClient(
        target,
        system=SYSTEM,
        name="the git server",
        headers={"User-Agent": "git/fluobook"} | ({"Authorization": f"Basic {token}"} if secret else {}),
        secrets=(secret, token),
        facts=facts,
        deadline=deadline,
    )
    doing, path = f"read {shown}", f"{parts.path.rstrip('/')}/info/refs?service=git-upload-pack"
    with closing(http):
        answer = http.send("GET", path, doing=doing, repeat_if=is_passing, largest=LARGEST)
        refs: dict[str, str] = http.read(answer, doing, None, parse_advertisement)
        if refused := refs.get("ERR"):
            code, kind = answers.tool_failure(refused)
            message = f"the git server refuses to read {shown}: {refused}"
            raise (kind if code else AccessDenied)(message, system=SYSTEM, code=code or "403", facts=facts)
        return refs


def parse_advertisement(body: bytes) -> dict[str, str]:
    """The commits of branches and tags by name, in pkt-lines: four digits of length, then the content; or "ERR".

    Raises:
        ValueError: it is no such list, or incomplete.
    """
    if not _PACKETS.match(body):
        raise ValueError("it is not git's smart protocol")
    refs, rest, flushes = {}, body, 0
    while flushes < 2:  # noqa: PLR2004  (the service's name, then the list)
        if re.match(rb".{0,3}[^0-9a-fA-F]", rest[:4], re.DOTALL):
            raise ValueError("the length of a packet is no number")
        if len(rest) < 4 or (length := int(rest[:4], 16)) > len(rest):  # noqa: PLR2004
            raise ValueError("unexpected end of stream")
        line = rest[4:length].decode().strip()
        if line.startswith("ERR "):
            return {"ERR": line.removeprefix("ERR ")}
        sha, _, name = line.partition("\0")[0].partition(" ")
        if re.fullmatch(r"[0-9a-f]{40,64}", sha):
            refs[name] = sha
        elif line and not line.startswith(("# service=git-upload-pack", "version 1", "shallow ")):
            raise ValueError("a line names no commit")
        flushes += length == 0
        rest = rest[max(length, 4) :]
    refs.pop("capabilities^{}", None)  # stands for the branches of an empty repository
    return refs


def _public(url: str) -> str:
    """A URL without credentials; a path or an ssh address as it is."""
    return answers.public_url(url) if "://" in url else url
