"""The charts and git repositories that the tree names, fetched once from their own servers and kept in a folder.

The servers are those of the tree, or the mirrors of the params: an https repository with an index, an OCI registry, a
git server. An archive is checked against the digest in the index or in the registry's manifest; a commit is its own
digest. What is kept needs no network any more.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

from fluobook import files
from fluobook.clients import answers, helm
from fluobook.clients import git as git_client
from fluobook.clients.https import MOST_REDIRECTS, is_passing
from fluobook.clients.tools import run_tool
from fluobook.errors import AccessDenied, BadFile, FluobookError, InvalidAnswer, NotFound, OutsideError, ToolFailed
from fluobook_lab.charts.sources import LARGEST, commit_of, is_complete, parse_archive

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fluobook.clients.https import Answer
    from fluobook.params import Platform
    from fluobook_lab.charts import Pin

DEADLINE = 300.0
"""Seconds for one index, archive or git repository."""
PARALLEL = 6
LAYERS = ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "application/tar+gzip")
"""The media types of a chart's archive in a registry."""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SYSTEM = "chart repository"
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Kept:
    """One chart or git repository in the cache, or why it is not there.

    Args:
        repository: the tree's `repoURL`.
        chart: its name; "" for a git repository.
        version: as the tree pins it.
        url: where it came from.
        state: "cached", "fetched" or "unreachable".
        digest: SHA-256 of the archive, or the commit.
        size: bytes of the archive; 0 for a git repository.
        cause: why it could not be had.
    """

    repository: str
    chart: str
    version: str
    url: str
    state: str
    digest: str = ""
    size: int = 0
    cause: str = ""


def pull(pins: Iterable[Pin], folder: Path, *, git: Path, platform: Platform) -> list[Kept]:
    """Fetch what the folder does not have; a server that does not deliver becomes the cause in its row.

    Args:
        pins: the charts and git repositories.
        folder: keeps them as HOST/PATH/CHART-VERSION.tgz and HOST/PATH.git.
        git: the git program.
        platform: its mirrors and trusted authorities.
    """

    def fetch(pin: Pin) -> Kept:
        url = platform.gitops.mirrored(pin.repository)
        try:
            if pin.chart:
                return _chart(pin, folder / pin.path / f"{pin.chart}-{pin.version}.tgz", url, platform)
            return _repository(pin, folder / f"{pin.path}.git", url, git, platform)
        except FluobookError as error:
            cause = ": ".join(filter(None, (error.message, error.cause)))
            return Kept(pin.repository, pin.chart, pin.version, url, "unreachable", cause=cause)

    listed = list(pins)
    with ThreadPoolExecutor(PARALLEL) as pool:
        charts = list(pool.map(fetch, [pin for pin in listed if pin.chart]))
    return charts + [fetch(pin) for pin in listed if not pin.chart]  # in turn: two may be in one repository


def _chart(pin: Pin, file: Path, url: str, platform: Platform) -> Kept:
    record = file.with_name(f"{file.name}.json")
    try:
        kept = Kept(**json.loads(record.read_text()))
        if hashlib.sha256(file.read_bytes()).hexdigest() == kept.digest:
            return replace(kept, state="cached")
    except (OSError, ValueError, TypeError):
        pass  # it is not there, or damaged
    if "://" in url and not url.startswith("oci://"):
        source, content, digest = _from_index(pin, url, platform)
    else:
        source, content, digest = _from_registry(
            f"{url.removeprefix('oci://').rstrip('/')}/{pin.chart}", pin.version, platform
        )
    shown, actual = answers.public_url(source), hashlib.sha256(content).hexdigest()
    if digest and digest.removeprefix("sha256:").lower() != actual:
        raise BadFile(shown, f"has the SHA-256 {actual}, and its repository says {digest}", remedy="ask its publisher")
    chart = parse_archive(shown, content).package
    if (chart.name, chart.version.removeprefix("v")) != (pin.chart, pin.version.removeprefix("v")):
        raise BadFile(
            shown, f"is {chart.name} {chart.version}, not {pin.chart} {pin.version}", remedy="ask its publisher"
        )
    kept = Kept(pin.repository, pin.chart, pin.version, shown, "fetched", actual, len(content))
    _write(file, content)
    _write(record, json.dumps(asdict(kept)).encode())
    return kept


def _from_index(pin: Pin, url: str, platform: Platform) -> tuple[str, bytes, str]:
    """URL, content and digest of an archive that an index lists."""
    entries = helm.entries(url, pin.chart, platform.ca_file(url), DEADLINE)
    wanted = pin.version.removeprefix("v")
    entry = next((e for e in entries if str(e["version"]).removeprefix("v") == wanted), None)
    if entry is None or not entry.get("urls"):
        newest = ", ".join(str(e["version"]) for e in entries[:5])
        cause = "its index has no URL for it" if entry else f"its index lists {newest or 'no version'}"
        raise NotFound(f"there is no {pin.chart} {pin.version} of {url}", system=SYSTEM, code="NO_CHART", cause=cause)
    source, digest = urljoin(f"{url.rstrip('/')}/", entry["urls"][0]), str(entry.get("digest") or "")
    if source.startswith("oci://"):
        name, _, tag = source.removeprefix("oci://").rpartition(":")
        source, content, _ = _from_registry(name, tag, platform)
        return source, content, digest
    source = platform.gitops.mirrored(source)
    return source, _get(source, platform, f"download {pin.chart} {pin.version}").body, digest


def _from_registry(name: str, version: str, platform: Platform) -> tuple[str, bytes, str]:
    """URL, content and digest of an archive in an OCI registry: token, manifest, blob (distribution spec).

    Args:
        name: HOST/PATH/CHART.
        version: its version, which is the tag but for a `+`.
        platform: the trusted authorities.
    """
    host, _, path = name.partition("/")
    url, tag = f"https://{host}/v2/{path}", version.replace("+", "_")
    doing, headers = f"read the manifest of {name} {version}", {"Accept": MANIFEST}
    manifest_url = f"{url}/manifests/{tag}"
    try:
        answer = _get(manifest_url, platform, doing, headers)
    except _Challenge as challenge:
        headers["Authorization"] = f"Bearer {_token(challenge, url, platform)}"
        answer = _get(manifest_url, platform, doing, headers)
    stated = answer.headers.get("Docker-Content-Digest") or ""
    actual = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
    if stated.startswith("sha256:") and stated != actual:
        raise BadFile(
            manifest_url, f"has the digest {actual}, and the registry says {stated}", remedy="ask its publisher"
        )
    with closing(helm.client(url, platform.ca_file(url), DEADLINE)) as http:
        manifest = http.read(answer, doing, {"layers": [{"mediaType": str, "digest": str}]})
    layer = next((layer for layer in manifest["layers"] if layer["mediaType"] in LAYERS), None)
    if layer is None:
        raise NotFound(
            f"{name}:{tag} is not a chart", system=SYSTEM, code="NO_CHART", cause="its manifest has no chart layer"
        )
    blob = f"{url}/blobs/{layer['digest']}"
    return blob, _get(blob, platform, f"download {name} {version}", headers).body, layer["digest"]


class _Challenge(AccessDenied):
    """A registry asks for a token; `parameters` say where it is given out."""

    parameters: Mapping[str, str]


def _token(challenge: _Challenge, registry: str, platform: Platform) -> str:
    """An anonymous token, from where the registry says."""
    realm = challenge.parameters.get("realm", "")
    if not realm.startswith("https://"):
        raise challenge
    query = urlencode({key: value for key, value in challenge.parameters.items() if key in ("service", "scope")})
    doing = f"get a token for {answers.public_url(registry)}"
    answer = _get(f"{realm}{'&' if '?' in realm else '?'}{query}", platform, doing)
    with closing(helm.client(realm, platform.ca_file(realm), DEADLINE)) as http:
        given = http.read(answer, doing, {"token?": str, "access_token?": str})
    if not (token := given.get("token") or given.get("access_token")):
        raise challenge
    return str(token)


def _get(url: str, platform: Platform, doing: str, headers: Mapping[str, str] | None = None) -> Answer:
    """The answer to a GET. Redirects are followed to other hosts too, without the token, and never to http.

    Raises:
        _Challenge: a registry asks for a token.
        OutsideError: as in `HttpClient.send`.
    """
    sent = dict(headers or {})
    for _ in range(MOST_REDIRECTS):
        parts = urlsplit(url)
        http = helm.client(
            url, platform.ca_file(url), DEADLINE, secrets=[sent.get("Authorization", "").removeprefix("Bearer ")]
        )

        def refusal(answer: Answer, what: str, http: Any = http) -> OutsideError:
            error: OutsideError = http.refused(answer, what)
            scheme, _, parameters = (answer.headers.get("WWW-Authenticate") or "").partition(" ")
            if answer.status == 401 and scheme.lower() == "bearer" and "Authorization" not in sent:  # noqa: PLR2004
                error = _Challenge(
                    error.message, system=error.system, detail=error.detail, code=error.code, facts=error.facts
                )
                error.parameters = dict(_PARAMETER.findall(parameters))
            return error

        with closing(http):
            try:
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                return http.send(
                    "GET", path, doing=doing, headers=sent, repeat_if=is_passing, largest=LARGEST, refusal=refusal
                )
            except InvalidAnswer as error:
                target = error.location
                if not target or (parts.scheme == "https" and not target.startswith("https://")):
                    raise
                last = error
        url = target
        sent.pop("Authorization", None)
    raise last


def _repository(pin: Pin, folder: Path, url: str, git: Path, platform: Platform) -> Kept:
    """A bare repository with the files of the pinned tag, branch or commit."""
    kept = Kept(pin.repository, "", pin.version, answers.public_url(url) if "://" in url else url, "cached")
    commit = commit_of(git, folder, pin.version) if folder.exists() else ""
    if commit and is_complete(git, folder, commit):
        return replace(kept, digest=commit)
    ca_file = platform.ca_file(url)
    wanted = git_client.ls_remote(url, pin.version, ca_file=ca_file)
    folder.mkdir(parents=True, exist_ok=True)
    run_tool("git", [git, "init", "-q", "--bare", folder])
    env: dict[str, str | None] = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    env |= {"GIT_SSL_CAINFO": str(ca_file)} if ca_file else {}
    command: list[str | Path] = [
        git,
        "-c",
        "http.followRedirects=false",
        "-C",
        folder,
        "fetch",
        "-q",
        "--depth=1",
        "--no-tags",
    ]
    names = [f"refs/tags/{pin.version}", f"refs/heads/{pin.version}"]
    names = (
        [f"{pin.version}:refs/heads/{pin.version}"] if wanted == pin.version else [f"+{name}:{name}" for name in names]
    )
    for number, name in enumerate(names):
        try:
            run_tool("git", [*command, "--", url, name], env=env, deadline=DEADLINE)
            break
        except ToolFailed as error:
            if number + 1 == len(names) or "find remote ref" not in error.detail:
                raise
    commit = commit_of(git, folder, pin.version)
    if commit != wanted:
        raise BadFile(kept.url, f"gave {commit or 'nothing'} for {pin.version} and lists {wanted}", remedy="try again")
    return replace(kept, state="fetched", digest=commit)


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        partial.write_bytes(content)
        partial.replace(file)
    except OSError as error:
        raise files.unwritable(file, error) from error
