"""Where the lab's charts and git repositories come from: a folder with the real ones, or the lab's stand-ins.

The folder may have any layout. A chart archive (*.tgz) is known by the name and version in its Chart.yaml, a git
repository by the end of its path: `…/rabbitmq/cluster-operator.git` is that of
https://github.com/rabbitmq/cluster-operator.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fluobook import files
from fluobook.errors import BadFile, UsageError
from fluobook_lab.charts import GIT_STANDINS, Package, charts, repositories, repository_path
from fluobook_lab.git_server import ISOLATED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fluobook_lab.charts import Pin

MANIFESTS = ("cluster-gitops", "site")
"""The folders of a repository that have Applications."""
STANDINS, UPSTREAM = "stand-ins", "upstream"
ARCHIVES = (".tgz", ".tar.gz")
LARGEST = 32 * files.MIB
"""Bytes of a chart archive; the largest charts in use have less than one MiB."""
LARGEST_UNPACKED, LARGEST_MEMBER = 100 * files.MIB, 5 * files.MIB
"""Bytes of an unpacked chart and of one file in it: helm refuses more."""
PACK_AGAIN = "fetch it again, or pack it with `helm package`"


@dataclass(frozen=True)
class Source:
    """What serves one chart or git repository of the tree.

    Args:
        repository: the tree's `repoURL`.
        chart: its name; "" for a git repository.
        version: as the tree pins it.
        used: "real", "stand-in", or "remote" for a git repository that is fetched from its own server.
        origin: the archive or repository that is used; "" for a stand-in.
        digest: SHA-256 of the archive, or the commit.
        cause: why it is not a real one.
    """

    repository: str
    chart: str
    version: str
    used: str
    origin: str = ""
    digest: str = ""
    cause: str = ""

    @property
    def name(self) -> str:
        """The chart, or the repository without its host, with the version."""
        return f"{self.chart or repository_path(self.repository).partition('/')[2]} {self.version}"


def described(mode: str, sources: Sequence[Source]) -> str:
    """One line about the charts of a lab, and one for each that is not the real one."""
    if mode == STANDINS:
        return "charts: the lab's stand-ins"
    lacking = [source for source in sources if source.used != "real"]
    lines = [f"charts: {len(sources) - len(lacking)} of {len(sources)} sources are real, from {mode}"]
    for source in lacking:
        used = "its own server is asked" if source.used == "remote" else "the lab's stand-in is used"
        lines.append(f"{source.name}: {used}, because {source.cause}")
    return "\n".join(lines)


def resolve(root: Path, own: str, folder: Folder | None) -> list[Source]:
    """What serves each chart and each foreign git repository that the tree names.

    Args:
        root: the repository with the tree.
        own: its URL, as the Applications name it.
        folder: the real charts, if there are any.

    Raises:
        BadFile: two different archives or repositories in the folder have the same claim.
    """
    return [_source(pin, folder) for pin in pins(root, own)]


def pins(root: Path, own: str) -> list[Pin]:
    """The charts and the foreign git repositories that the tree names."""
    trees = [root / name for name in MANIFESTS]
    return [*charts(*trees), *(pin for pin in repositories(*trees) if pin.path != repository_path(own))]


def _source(pin: Pin, folder: Folder | None) -> Source:
    origin, digest, cause = "", "", ""
    if folder and pin.chart:
        if archive := folder.chart(pin):
            origin, digest = str(archive.file), archive.package.digest
    elif folder and (repository := folder.repository(pin)):
        origin, digest = str(repository[0]), repository[1]
    if folder and not origin:
        cause = folder.why_not(pin)
    is_remote = not pin.chart and not (GIT_STANDINS / pin.path).is_dir()
    used = "real" if origin else "remote" if is_remote else "stand-in"
    return Source(pin.repository, pin.chart, pin.version, used, origin, digest, cause)


@dataclass(frozen=True)
class Archive:
    """A chart archive of the folder.

    Args:
        file: where it is.
        package: the chart.
        contents: the digest of the files in it: packed twice, a chart has other bytes and the same contents.
    """

    file: Path
    package: Package
    contents: str


class Folder:
    """A folder with chart archives and git repositories.

    Args:
        path: the folder.
        git: the git program.
        causes: why something is not in it, by `Pin.id`.

    Raises:
        UsageError: it is no folder.
        BadFile: an archive in it is no valid chart.
    """

    def __init__(self, path: Path, *, git: Path, causes: Mapping[str, str] | None = None) -> None:
        if not path.is_dir():
            raise UsageError(
                f"--charts {path} is not a folder",
                remedy=f"write {STANDINS}, {UPSTREAM}, or a folder with chart archives (*.tgz) and git repositories",
            )
        self.path, self._git, self._causes = path, git, causes or {}
        self._read()

    def _read(self) -> None:
        self._archives: dict[tuple[str, str], list[Archive]] = {}
        self._repositories: list[Path] = []
        for each in _walk(self.path, set()):
            if each.is_dir():
                self._repositories.append(each)
            else:
                archive = read_archive(each)
                self._archives.setdefault(_key(archive.package.name, archive.package.version), []).append(archive)

    def chart(self, pin: Pin) -> Archive | None:
        """The archive of a chart.

        Raises:
            BadFile: two different archives have its name and version, and no path says which is this repository's.
        """
        archives = self._archives.get(_key(pin.chart, pin.version), [])
        own = [archive for archive in archives if _common_end(archive.file.parent, pin.path) == len(_parts(pin.path))]
        fitting = {archive.contents: archive for archive in reversed(own or archives)}
        if len(fitting) > 1:
            first, second = sorted(str(archive.file) for archive in fitting.values())[:2]
            problem = f"and {second} are both {pin.chart} {pin.version}, with different contents"
            remedy = f"keep one of them, or put that of {pin.repository} into a folder {pin.path}"
            raise BadFile(first, problem, remedy=remedy)
        return next(iter(fitting.values()), None)

    def package(self, pin: Pin) -> Package | None:
        """The chart as the lab serves it; the folder is read again for one that it does not have yet."""
        if self.chart(pin) is None:
            self._read()
        archive = self.chart(pin)
        if archive is None:
            return None
        metadata = {**archive.package.metadata, "version": pin.version}  # the same, but for a leading v
        return Package(pin.chart, pin.version, metadata, archive.package.archive)

    def repository(self, pin: Pin) -> tuple[Path, str] | None:
        """The git repository with the longest common path, and the commit of the pinned tag, branch or commit.

        Raises:
            BadFile: two repositories with equally long paths have different commits, or objects are missing.
        """
        repositories = {
            repository: commit
            for repository in self._candidates(pin)
            if (commit := commit_of(self._git, repository, pin.version))
        }
        if len(set(repositories.values())) > 1:
            first, second = list(repositories)[:2]
            problem = f"and {second} both fit {pin.repository}, and {pin.version} is another commit in each"
            raise BadFile(first, problem, remedy="keep one of them")
        for repository, commit in repositories.items():
            if not is_complete(self._git, repository, commit):
                problem = f"has {pin.version}, but not all of its files"
                raise BadFile(repository, problem, remedy="clone it again, without --filter")
            return repository, commit
        return None

    def why_not(self, pin: Pin) -> str:
        """Why a chart or repository is not had from here."""
        if pin.id in self._causes:
            return self._causes[pin.id]
        if not pin.chart:
            candidates = self._candidates(pin)
            if candidates:
                return f"{candidates[0]} has no tag, branch or commit {pin.version}"
            return f"{self.path} has no git repository whose path ends with {pin.path.rpartition('/')[2]}"
        others = sorted(
            archive.package.version for (name, _), a in self._archives.items() if name == pin.chart for archive in a
        )
        return f"{self.path} has version {', '.join(others)} of it" if others else f"{self.path} does not have it"

    def _candidates(self, pin: Pin) -> list[Path]:
        lengths = {repository: _common_end(repository, pin.path) for repository in self._repositories}
        longest = max(lengths.values(), default=0)
        return [repository for repository, length in lengths.items() if length == longest > 0]


def _key(chart: str, version: str) -> tuple[str, str]:
    return chart, version.removeprefix("v")


def _parts(path: Path | str) -> list[str]:
    return [part.lower() for part in str(path).removesuffix(".git").strip("/").split("/")]


def _common_end(path: Path, other: str) -> int:
    """How many parts at their ends two paths have in common."""
    pairs = zip(reversed(_parts(path)), reversed(_parts(other)), strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(_parts(path)), len(_parts(other))))


def _walk(folder: Path, visited: set[Path]) -> Iterator[Path]:
    """The archives and the git repositories below a folder; nothing inside a repository but the top one.

    Raises:
        BadFile: a folder cannot be read, or a link leads nowhere.
    """
    is_top, real = not visited, folder.resolve()
    if real in visited:
        return
    visited.add(real)
    if is_repository(folder):
        yield folder
        if not is_top:
            return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise BadFile(folder, f"cannot be read: {error.strerror}", remedy="check its permissions") from error
    for entry in entries:
        if entry.is_dir():
            if entry.name != ".git":
                yield from _walk(entry, visited)
        elif entry.name.endswith(ARCHIVES):
            yield entry


def is_repository(folder: Path) -> bool:
    """Whether a folder is a bare git repository or a clone."""
    return (folder / ".git").exists() or (
        (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()
    )


def commit_of(git: Path, repository: Path, revision: str) -> str:
    """The commit of a tag, a branch or a commit id; "" if the repository does not have it."""
    names = [f"refs/tags/{revision}", f"refs/heads/{revision}", f"refs/remotes/origin/{revision}"]
    names += [revision] if len(revision) in (40, 64) or revision == "HEAD" else []
    for name in names:
        if commit := _run(
            git, repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        ):
            return commit.strip()
    return ""


def is_complete(git: Path, repository: Path, commit: str) -> bool:
    """Whether a repository has every file of a commit."""
    return _run(git, repository, "rev-list", "--objects", "--quiet", "--no-walk", commit) is not None


def _run(git: Path, repository: Path, *arguments: str) -> str | None:
    """The output of a git command that only reads; None if it failed."""
    env = {**os.environ, **ISOLATED, "GIT_NO_LAZY_FETCH": "1"}
    command = [str(git), "-c", "safe.directory=*", "-C", str(repository), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=60)
    return done.stdout if done.returncode == 0 else None


def read_archive(file: Path) -> Archive:
    """A chart from its archive; see `parse_archive`."""
    return parse_archive(file, _content(file))


def parse_archive(file: Path | str, content: bytes) -> Archive:
    """A chart from the content of an archive, as `helm package` makes it.

    Args:
        file: its path or URL, for messages.
        content: the archive.

    Raises:
        BadFile: it is truncated, too large, or no chart that helm would load.
    """
    members, contents = _members(file, content)
    if "Chart.yaml" not in members:
        raise BadFile(file, "is not a chart: it has no FOLDER/Chart.yaml", remedy=f"remove it, or {PACK_AGAIN}")
    name = f"{file}: Chart.yaml"
    metadata = next(iter(files.parse_yaml(members["Chart.yaml"].decode(errors="replace"), name)), None)
    metadata = metadata if isinstance(metadata, dict) else {}
    for key in ("name", "version"):
        if not isinstance(metadata.get(key), str) or not metadata[key] or "/" in metadata[key]:
            raise BadFile(name, f"has no valid {key}: {metadata.get(key)!r}", remedy=PACK_AGAIN)
    packed = {path.split("/")[1] for path in members if path.startswith("charts/")}
    dependencies = metadata.get("dependencies")
    for dependency in dependencies if isinstance(dependencies, list) else ():
        wanted = str(dependency.get("name") if isinstance(dependency, dict) else dependency)
        if not any(entry == wanted or entry.startswith(f"{wanted}-") for entry in packed):
            problem = f"depends on the chart {wanted}, which is not in the archive"
            raise BadFile(file, problem, remedy="run `helm dependency build` in the chart, then `helm package`")
    return Archive(Path(file), Package(metadata["name"], metadata["version"], metadata, content), contents)


def _content(file: Path) -> bytes:
    remedy = f"remove it, or {PACK_AGAIN}"
    try:
        if not file.is_file():
            raise files.not_regular(file)
        if file.stat().st_size > LARGEST:
            raise BadFile(file, f"is larger than {LARGEST // files.MIB} MiB, too large for a chart", remedy=remedy)
        return file.read_bytes()
    except OSError as error:
        raise BadFile(file, f"cannot be read: {error.strerror}", remedy="check its permissions") from error


def _members(file: Path | str, content: bytes) -> tuple[dict[str, bytes], str]:
    """The files of an archive by their path below its one top folder, and the digest of them all."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as zipped:
            unpacked = zipped.read(LARGEST_UNPACKED + 1)
        if len(unpacked) > LARGEST_UNPACKED:
            raise BadFile(file, f"unpacks to more than {LARGEST_UNPACKED // files.MIB} MiB", remedy=PACK_AGAIN)
        members: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            for member in tar:
                path = _safe_path(file, member)
                if member.isdir():
                    continue
                if path in members:
                    raise BadFile(file, f"has {member.name} twice", remedy=PACK_AGAIN)
                stream = tar.extractfile(member)
                members[path] = stream.read() if stream else b""
    except EOFError as error:
        raise BadFile(file, f"is truncated ({error})", remedy=PACK_AGAIN) from None
    except (OSError, zlib.error, tarfile.TarError, ValueError) as error:
        is_truncated = "unexpected end" in str(error)
        problem = "is truncated" if is_truncated else "is not a gzip-compressed tar archive"
        raise BadFile(file, f"{problem} ({error})", remedy=PACK_AGAIN) from None
    digest = hashlib.sha256()
    for path in sorted(members):
        digest.update(f"{path}\0{len(members[path])}\0".encode() + members[path])
    return members, digest.hexdigest()


def _safe_path(file: Path | str, member: tarfile.TarInfo) -> str:
    """The path of a member below the top folder.

    Raises:
        BadFile: it leads outside, is a link or a device, or is too large.
    """
    parts = member.name.replace("\\", "/").split("/")
    if ".." in parts or member.name.startswith("/") or ":" in parts[0]:
        raise BadFile(file, f"contains {member.name}, a path that leads outside", remedy=PACK_AGAIN)
    if not (member.isreg() or member.isdir()) or member.issparse():
        problem = f"contains {member.name}, which is a link or no regular file; helm would not read it"
        raise BadFile(file, problem, remedy=PACK_AGAIN)
    if member.size > LARGEST_MEMBER:
        problem = f"contains {member.name} with more than {LARGEST_MEMBER // files.MIB} MiB; helm refuses that"
        raise BadFile(file, problem, remedy=PACK_AGAIN)
    return "/".join(part for part in parts[1:] if part != ".")
