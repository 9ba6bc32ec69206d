"""What sources publish about their releases: Kubernetes' own files, a Python package index."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fluobook.clients.https import PORTS, HttpClient, Target, is_passing
from fluobook.errors import NotFound

if TYPE_CHECKING:
    from pathlib import Path

KUBERNETES = "https://cdn.dl.k8s.io/release"
PACKAGES = "https://pypi.org/simple"
SYSTEM = "release list"
_VERSION = re.compile(r"v(\d+)\.(\d+)\.\d+")


def kubernetes(
    url: str = KUBERNETES,
    *,
    since: str,
    ca_file: Path | str | None = None,
    address: tuple[str, int] | None = None,
    deadline: float | None = None,
) -> list[str]:
    """The newest patch of each minor version of Kubernetes, from that of `since` to the newest.

    Args:
        url: where `stable.txt` and `stable-1.35.txt` are.
        since: a version, such as "1.35.4".
        ca_file: CA certificates instead of the system's.
        address: the (host, port) to connect to instead.
        deadline: seconds for a call.

    Raises:
        OutsideError: no answer, a refusal, or something that is no version.
    """
    with closing(_client(url, ca_file, address, deadline)) as http:
        newest = _stable(http, url, "stable")
        major, minor = map(int, newest.removeprefix("v").split(".")[:2])
        first = int(since.removeprefix("v").split(".")[1])
        names = [f"stable-{major}.{each}" for each in range(first, minor)]
        return [*(_stable(http, url, name) for name in names), newest]


def _stable(http: HttpClient, url: str, name: str) -> str:
    doing = f"read {name}.txt"
    answer = http.send("GET", f"{urlsplit(url).path.rstrip('/')}/{name}.txt", doing=doing, repeat_if=is_passing)
    if not _VERSION.fullmatch(answer.text):
        raise http.invalid("NO_VERSION", "is no version of Kubernetes", doing, body=answer.body)
    return answer.text


def packages(
    name: str, url: str = PACKAGES, *, ca_file: Path | str | None = None, deadline: float | None = None
) -> list[str]:
    """The versions of a Python package, without those that were withdrawn.

    Args:
        name: the package.
        url: a package index that answers in the JSON form of PEP 691.
        ca_file: CA certificates instead of the system's.
        deadline: seconds for the call.

    Raises:
        NotFound: the index has no such package.
        OutsideError: no answer, a refusal, or something else than an index.
    """
    with closing(_client(url, ca_file, None, deadline)) as http:
        answer = http.send(
            "GET",
            f"{urlsplit(url).path.rstrip('/')}/{name}/",
            doing=f"list the versions of {name}",
            headers={"Accept": "application/vnd.pypi.simple.v1+json"},
            repeat_if=is_passing,
            largest=64 << 20,
        )
        listed = http.read(answer, f"list the versions of {name}", {"files": [{"filename": str}]})
    versions = {
        match[1]
        for file in listed["files"]
        if not file.get("yanked") and (match := re.match(r"[^-]+-(\d[^-]*?)(?:-|\.tar\.gz$|\.zip$)", file["filename"]))
    }
    if not versions:
        raise NotFound(f"{url} has no version of {name}", system=SYSTEM, code="NO_PACKAGE")
    return sorted(versions)


def _client(
    url: str, ca_file: Path | str | None, address: tuple[str, int] | None, deadline: float | None
) -> HttpClient:
    parts = urlsplit(url)
    target = Target(
        parts.hostname or "",
        parts.port or PORTS[parts.scheme],
        address=address,
        ca_file=str(ca_file) if ca_file else None,
        scheme=parts.scheme,
    )
    return HttpClient(target, system=SYSTEM, name="the list of releases", deadline=deadline)
