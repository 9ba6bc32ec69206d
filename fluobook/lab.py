"""How fluobook finds the lab: one entry point, group `fluobook`, name `lab`.

The lab is a distribution of its own (`pip install "fluobook[lab]"`, package `fluobook_lab`). fluobook imports nothing
of it: it loads the object behind the entry point and uses it as `Provider` describes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fluobook.clients import tools
from fluobook.errors import NotFound

if TYPE_CHECKING:
    from fluobook.params import Params


class Lab(Protocol):
    """A lab that is up."""

    folder: Path
    """Its state folder."""

    cluster_folder: Path
    """Where the cluster's own files are: bundle, kubeconfig, talosconfig, lock."""

    overlay: Mapping[str, Any]
    """What replaces parts of the platform's params in a rehearsal: endpoints, trust, mirrors, secrets."""

    pid: int
    """Its process."""

    engine: str
    """What plays Kubernetes and Argo CD in it: "embedded" or "real"."""

    speed: float
    """The time scale: simulated seconds per real second."""

    charts: str
    """What it serves as charts: "stand-ins", or the folder of the real ones."""

    sources: Sequence[Mapping[str, Any]]
    """What serves each chart and git repository of the tree: `chart`, `version`, `used`, `cause` and more."""

    remarks: tuple[str, ...]
    """What a person should know about it."""


class Provider(Protocol):
    """What the lab's distribution offers."""

    FAULTS: Mapping[str, str]
    """Each fault that a lab can inject, with what happens."""

    DRILLS: Mapping[str, Any]
    """Each failure that can be practised by its code: `phase`, `stage`, `injected`, `settings`, `outside`, `change`."""

    def folder_of(self, phase: str) -> Path:
        """The state folder of the lab that is kept for a phase."""

    def find(self, folder: Path) -> Lab | None:
        """The lab whose state folder this is, if it is up."""

    def for_phase(self, chosen: Params, *, root: Path, programs: Callable[[], Mapping[str, str]]) -> Lab:
        """The lab of this run, the one that is kept up, or a new one that ends with this process."""

    def own(
        self,
        chosen: Params,
        *,
        root: Path,
        programs: Mapping[str, str],
        speed: float | None = None,
        faults: Sequence[str] = (),
        engines: Mapping[str, str] | None = None,
        charts: str = "",
    ) -> Lab:
        """Start a lab that ends with this process."""

    def start(
        self,
        chosen: Params,
        folder: Path,
        *,
        root: Path,
        programs: Mapping[str, str],
        owner: int | None,
        speed: float | None = None,
        seed: int = 1,
        faults: Sequence[str] = (),
        engines: Mapping[str, str] | None = None,
        charts: str = "",
    ) -> Lab:
        """Start a lab in a folder; without an owner it stays until `end`."""

    def engine_inventory(self, root: Path) -> Sequence[Any]:
        """Every program of the engine `real`: `name`, `version`, `purpose`, `path` (None if missing), `source`."""

    def engine_programs(self, root: Path) -> dict[str, str]:
        """The path of each program of the engine `real`; raises ToolFailed if some are missing."""

    def pull_charts(self, chosen: Params, *, root: Path, programs: Mapping[str, str]) -> tuple[Path, Sequence[Any]]:
        """Fetch the tree's charts into the cache: `state`, `chart`, `version`, `url`, `digest`, `size`, `cause`."""

    def diff_charts(
        self,
        chosen: Params,
        applications: Sequence[Mapping[str, Any]],
        *,
        charts: str,
        root: Path,
        programs: Mapping[str, str],
    ) -> tuple[Sequence[Any], Mapping[str, str]]:
        """The differences between stand-ins and real charts, and why some Applications are not compared."""

    def inject(self, lab: Any, faults: Sequence[str], settings: Sequence[str] = ()) -> None:
        """Let a lab inject these faults and no others from now on, with these params ("path=value") in every run."""

    def resemble(self, lab: Any, state: Mapping[str, Any]) -> Sequence[str]:
        """Let a lab that was brought up resemble a platform, by `fluobook.stages.likeness`; what it could not take."""

    def activity(self, lab: Any) -> dict[str, Any]:
        """What happened in a lab so far: requests, Applications, critical paths."""

    def end(self, lab: Any, *, forget: bool = False) -> None:
        """End a lab and wait until its process is gone."""


def conditions(target: str, lab: Lab | None) -> dict[str, Any]:
    """What the durations of a run depend on: its target, and in the lab the engine and the time scale."""
    return {"target": target} | ({"engine": lab.engine, "speed": lab.speed} if lab else {})


@cache
def provider() -> Provider:
    """The installed lab.

    Raises:
        NotFound: no distribution offers the entry point.
    """
    for entry in entry_points(group="fluobook", name="lab"):
        return entry.load()
    raise NotFound(
        "the lab is not installed",
        system="fluobook",
        cause="`pip install fluobook` does not install it: only a rehearsal needs it",
        remedy='pip install "fluobook[lab]", or run `make rehearse` in a clone',
    )


def programs() -> dict[str, str]:
    """Where the programs are that a lab runs; a lab does not search for them itself."""
    return {name: str(tools.find(name).path) for name in ("git", "kubectl", "helm", "sops")}


def for_phase(chosen: Params, *, root: Path) -> Lab:
    """The lab to rehearse a phase in; see `Provider.for_phase`."""
    return provider().for_phase(chosen, root=root, programs=programs)
