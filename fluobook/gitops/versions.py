"""How old the platform's versions are: what is pinned, what the sources publish, and what keeps the newest out."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from fluobook.errors import OutsideError
from fluobook.gitops.charts import chart_of, image_source
from fluobook.params.versions import minor_of

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook.gitops.tree import Application, Tree
    from fluobook.params import Platform
    from fluobook.params.versions import Matrix, Supported

Kind = Literal["talos", "kubernetes", "chart", "git", "image", "package"]
Step = Literal["newest", "patch", "minor", "major", "unlisted", "retired", "unknown", "unanswered"]
PARALLEL = 6
"""Sources queried at once."""
PROGRAMS = {
    "cilium": "",
    "longhorn": "",
    "argo-cd": "quay.io/argoproj/argocd",
    "ingress-nginx": "",
    "scylla-operator": "",
    "cert-manager": "",
    "cloudnative-pg": "",
}
"""Charts whose program has rows in the matrix, and the image whose pin is its version, if there is one."""
BASE = ("cilium", "longhorn")
"""Those without which no other pod of the platform runs."""
_STABLE = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(\+.*|-(?:management|alpine).*)?")
_IMAGE = re.compile(r"((?:[\w.-]+(?::\d+)?/)?(?:[\w.-]+/)*[\w.-]+):(v?\d[\w.-]*)(?:@sha256:[0-9a-f]{64})?")
_IMAGE_LINE = re.compile(rf"^\s*image:\s*[\"']?{_IMAGE.pattern}[\"']?\s*(?:#.*)?$", re.MULTILINE)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_LOCKED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Published:
    """One version that a source publishes; for a chart, also that of the program in it."""

    version: str
    app: str = ""
    deprecated: bool = False


@dataclass(frozen=True)
class Pin:
    """One version that is pinned.

    `source` is the URL (or, for a package, the name) that lists newer ones, `chart` a chart's name, `place` the file
    with the pin.
    """

    component: str
    kind: Kind
    version: str
    source: str
    place: str
    chart: str = ""
    retired: bool = False


@dataclass(frozen=True)
class Row:
    """One pin, compared.

    `step` is "newest" where there is nothing newer, "unlisted" where the source does not list the pinned version,
    "retired" where nothing newer will ever come, "unknown" where no source is known, and "unanswered" where the source
    gave no list: `problem` is the reason. `patch` is the newest version of the pinned minor, `newest` the newest of
    all, `running` what the platform runs ("" is unknown), `end` the end of support, `blocked` what does not go with
    the newest.
    """

    pin: Pin
    step: Step
    patch: str = ""
    newest: str = ""
    running: str = ""
    end: str = ""
    ended: bool = False
    blocked: str = ""
    problem: str = ""


Publish = Callable[[Pin], Iterable[Published]]
"""Lists what a pin's source publishes."""


def pins_of(platform: Platform, tree: Tree, root: Path) -> list[Pin]:
    """Every version that is pinned: Talos, Kubernetes, charts, git sources, images, a checkout's Python packages."""
    versions, params = platform.versions, "params/versions.yaml"
    pins = [
        Pin("talos", "talos", versions.talos, "https://factory.talos.dev", params),
        Pin("kubernetes", "kubernetes", versions.kubernetes, "https://dl.k8s.io", params),
    ]
    for app in tree.applications:
        place = _below(app.file, root)
        if app.chart:
            pins.append(Pin(app.chart, "chart", app.version, app.repo, place, app.chart, chart_of(app).retired))
        elif _numbers(app.version):
            pins.append(Pin(app.name, "git", app.version, app.repo, place))
        images = dict.fromkeys(_images([app.values]), place)
        for file in sorted((root / app.path).rglob("*.yaml")) if app.path and not _numbers(app.version) else ():
            images |= dict.fromkeys(_IMAGE_LINE.findall(file.read_text()), _below(file, root))
        pins += [Pin(name, "image", version, image_source(name), at) for (name, version), at in images.items()]
    return [*dict.fromkeys(pins), *_packages(root)]


@dataclass(frozen=True)
class Unsupported:
    """A program of the tree that does not support the platform's version of Kubernetes."""

    app: Application
    reason: str
    remedy: str


def unsupported(platform: Platform, applications: Iterable[Application]) -> Iterator[Unsupported]:
    """The programs whose row in the matrix leaves out the platform's version of Kubernetes; unknown ones are left out.

    Args:
        platform: the platform.
        applications: the Applications that are deployed.
    """
    matrix, kubernetes = platform.supported.matrix, platform.versions.kubernetes
    for app in applications:
        version = _program_of(app)
        if minor_of(version) in matrix.kubernetes.get(app.chart, {}) and (
            reason := matrix.refusal(app.chart, version, kubernetes)
        ):
            others = matrix.supporting(app.chart, kubernetes)
            change = (
                f"{app.chart} {' or '.join(others)}"
                if others
                else f"a later {app.chart}, with its row in params/versions.yaml"
            )
            change = f"leave {app.name} out (gitops.without)" if chart_of(app).retired else f"take {change}"
            yield Unsupported(app, reason, f"set versions.kubernetes to a version that its row has, or {change}")


def _program_of(app: Application) -> str:
    """The version of the program in an Application's chart, as far as the tree says it: its minor at least."""
    if app.chart not in PROGRAMS:
        return ""
    if image := dict(_images([app.values])).get(PROGRAMS[app.chart]):
        return image
    apps = chart_of(app).apps
    return apps.get(minor_of(app.version), "") if apps else app.version


def _below(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def _images(values: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """The images with a version in nested values: name and version."""
    for value in values:
        if isinstance(value, dict):
            image = value.get("image")
            if isinstance(image, dict) and {"repository", "tag"} <= image.keys():
                image = f"{image['repository']}:{image['tag']}"
            if isinstance(image, str) and (match := _IMAGE.fullmatch(image)):
                yield match[1], match[2]
            yield from _images(value.values())
        elif isinstance(value, list):
            yield from _images(value)


def _packages(root: Path) -> Iterator[Pin]:
    """The packages that pyproject.toml asks for, in the locked versions; none outside a checkout."""
    project, lock = root / "pyproject.toml", root / "requirements.lock"
    if not (project.is_file() and lock.is_file()):
        return
    wanted = {_normal(name) for name in re.findall(r'^  "([A-Za-z0-9][\w.-]*)', project.read_text(), re.MULTILINE)}
    for name, version in _LOCKED.findall(lock.read_text()):
        if _normal(name) in wanted:
            yield Pin(f"{name} (Python)", "package", version, name, "requirements.lock")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def compare(
    pins: Sequence[Pin],
    publish: Publish,
    supported: Supported,
    today: dt.date,
    running: Mapping[str, str] | None = None,
) -> list[Row]:
    """Every pin, compared with what its source publishes; a source that does not answer affects no other.

    Args:
        pins: what is pinned.
        publish: lists what a pin's source publishes.
        supported: the matrix, and the ends of support.
        today: the day.
        running: the versions that run, by component.
    """
    kubernetes = next((pin.version for pin in pins if pin.kind == "kubernetes"), "")
    with ThreadPoolExecutor(PARALLEL) as pool:
        listed = list(pool.map(lambda pin: _listed(pin, publish), pins))
    answered = [(pin, published) for pin, published in zip(pins, listed, strict=True) if isinstance(published, list)]
    programs = {pin.chart: _app(pin.version, published) for pin, published in answered if pin.chart in PROGRAMS}
    programs |= {pin.kind: pin.version for pin in pins if pin.kind == "talos"}
    images = {pin.component: pin.version for pin in pins if pin.kind == "image"}
    programs |= {chart: images[image] for chart, image in PROGRAMS.items() if image in images}
    matrix = supported.matrix
    rows = []
    for pin, published in zip(pins, listed, strict=True):
        row = _row(pin, published)
        row = replace(row, **_end(pin, supported, today), running=(running or {}).get(pin.component, ""))
        if row.newest and row.step != "newest" and isinstance(published, list):
            row = replace(row, blocked=_blocked(pin, _app(row.newest, published), matrix, kubernetes, programs))
        rows.append(row)
    return rows


def _listed(pin: Pin, publish: Publish) -> list[Published] | OutsideError:
    try:
        return list(publish(pin)) if pin.source else []
    except OutsideError as error:
        return error


def _row(pin: Pin, published: list[Published] | OutsideError) -> Row:
    """A pin beside what its source publishes."""
    if not pin.source:
        return Row(pin, "unknown")
    if isinstance(published, OutsideError):
        return Row(pin, "unanswered", problem=published.message)
    stable = sorted((each.version for each in published if _numbers(each.version)), key=_numbers)
    if not stable:
        return Row(pin, "unanswered", problem="its source lists no stable version")
    same = [version for version in stable if _numbers(version)[:2] == _numbers(pin.version)[:2]]
    newest = stable[-1]
    # Kubernetes' own list has the newest patch of each minor version alone.
    known = pin.kind == "kubernetes" or any(_plain(each.version) == _plain(pin.version) for each in published)
    retired = pin.retired or any(each.deprecated for each in published if each.version == newest)
    step: Step = "retired" if retired else _step(pin.version, newest) if known else "unlisted"
    return Row(pin, step, same[-1] if same else "", newest)


def _app(version: str, published: Iterable[Published]) -> str:
    """The version of the program in a chart's version."""
    return next((each.app or version for each in published if _plain(each.version) == _plain(version)), version)


def _end(pin: Pin, supported: Supported, today: dt.date) -> dict[str, Any]:
    """The end of support of a pin's minor version, and whether it has passed."""
    major, minor = [*_numbers(pin.version), 0, 0][:2]
    end = supported.support.get(pin.component, {}).get(f"{major}.{minor}", "")
    return {"end": end, "ended": bool(_DAY.fullmatch(end)) and dt.date.fromisoformat(end) < today}


def _blocked(pin: Pin, newest: str, matrix: Matrix, kubernetes: str, programs: Mapping[str, str]) -> str:
    """What does not go with the newest version by the matrix; "" if nothing is known, Kubernetes' version included."""
    if pin.kind == "kubernetes":
        refusing = [f"{name} {version}" for name, version in programs.items() if matrix.refusal(name, version, newest)]
        return ", ".join(refusing)
    component = next((chart for chart, image in PROGRAMS.items() if image == pin.component), pin.chart or pin.kind)
    if reason := matrix.denied.get(component, {}).get(newest.removeprefix("v")):
        return reason
    known = bool(kubernetes) and component in (*PROGRAMS, "talos")
    return matrix.refusal(component, newest, kubernetes) if known else ""


def running(nodes: Iterable[Mapping[str, Any]], applications: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The versions that a platform runs, by component: from its nodes, and from what Argo CD synced last.

    Args:
        nodes: its Nodes.
        applications: its Applications; one of several versions is shown with all of them.
    """
    versions: dict[str, set[str]] = {}
    for node in nodes:
        info = (node.get("status") or {}).get("nodeInfo") or {}
        if match := re.search(r"\(v(\S+)\)", str(info.get("osImage", ""))):
            versions.setdefault("talos", set()).add(match[1])
        if version := str(info.get("kubeletVersion", "")).removeprefix("v"):
            versions.setdefault("kubernetes", set()).add(version)
    for application in applications:
        history = (application.get("status") or {}).get("history") or []
        source = (history[-1].get("source") if history else None) or {}
        component = source.get("chart") or (application.get("metadata") or {}).get("name")
        if source.get("targetRevision"):
            versions.setdefault(str(component), set()).add(str(source["targetRevision"]))
    return {component: ", ".join(sorted(names)) for component, names in versions.items()}


def _step(pinned: str, newest: str) -> Step:
    """Which of the three numbers differs first."""
    if (available := _numbers(newest)) <= (current := _numbers(pinned)):
        return "newest"
    steps: tuple[Step, ...] = ("major", "minor", "patch")
    return next((step for step, a, b in zip(steps, current, available, strict=False) if b > a), "newest")


def _plain(version: str) -> str:
    return version.removeprefix("v").partition("-")[0]


def _numbers(version: str) -> tuple[int, ...]:
    """The three numbers of a stable version; () for any other."""
    match = _STABLE.fullmatch(version)
    return tuple(int(number or 0) for number in match.groups()[:3]) if match else ()
