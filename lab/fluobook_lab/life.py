"""The life of a lab: one process that is started, found and ended; the entry point that fluobook loads.

`fluobook lab up` keeps a lab of a phase in the background. Otherwise a run, a plan or a single notebook owns a lab for
as long as it needs one, and the lab ends with its owner.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.environment import cache_folder, inherited
from fluobook.errors import DeadlineExceeded, FluobookError, UsageError
from fluobook.files import MIB, is_alive, temporary_prefix, unwritable, write_json
from fluobook.params import Params, home
from fluobook.params.reading import merged, with_overrides
from fluobook.waiting import Cancellation, wait_until
from fluobook_lab.charts import Pin
from fluobook_lab.charts.sources import STANDINS, UPSTREAM, Folder, Source, described, pins, resolve
from fluobook_lab.drills import DRILLS
from fluobook_lab.engines.network import require_namespaces
from fluobook_lab.engines.programs import find as engine_inventory
from fluobook_lab.engines.programs import programs as engine_programs
from fluobook_lab.faults import FAULTS, Faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fluobook_lab.charts.diff import Difference
    from fluobook_lab.charts.upstream import Kept

__all__ = [
    "DRILLS",
    "FAULTS",
    "Lab",
    "activity",
    "diff_charts",
    "end",
    "engine_inventory",
    "engine_programs",
    "find",
    "folder_of",
    "for_phase",
    "inject",
    "own",
    "pull_charts",
    "resemble",
    "start",
]

READY = 60.0
"""Seconds that a lab may take to start or to answer."""
END = 10.0
"""Seconds that a lab may take to end before it is killed."""
POLL = 0.02
"""Seconds between the first two checks of a wait."""

DEFAULT_SPEED = 60.0
"""The time scale: simulated seconds per real second."""


_SETTINGS = "settings.json"


@dataclass(frozen=True)
class Lab:
    """A lab that is up.

    Args:
        folder: its state folder.
        overlay: what replaces parts of the platform's params in a rehearsal.
        pid: its process.
        engine: "embedded" or "real".
        speed: the time scale: simulated seconds per real second.
        charts: "stand-ins", or the folder of the real charts.
        sources: what serves each chart and git repository of the tree.
        remarks: information for the person who uses it.
    """

    folder: Path
    overlay: Mapping[str, Any]
    pid: int
    engine: str = "embedded"
    speed: float = DEFAULT_SPEED
    charts: str = STANDINS
    sources: tuple[Mapping[str, Any], ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def cluster_folder(self) -> Path:
        """The folder of the cluster's files: bundle, kubeconfig, talosconfig, lock."""
        return self.folder / "cluster"


def folder_of(phase: str) -> Path:
    """The state folder of a phase's background lab."""
    return home() / "lab" / phase


def find(folder: Path) -> Lab | None:
    """The lab with that state folder, if it is up."""
    settings = folder / _SETTINGS
    try:
        state = json.loads((folder / "lab.json").read_text())
        charts = (state["charts"], tuple(state["sources"]))
        remark = described(state["charts"], [Source(**source) for source in state["sources"]])
        overlay = merged(state["overlay"], json.loads(settings.read_text()) if settings.exists() else {})
        lab = Lab(folder, overlay, state["pid"], state["engine"], state["speed"], *charts, (remark,))
        return lab if _is_locked(folder / "alive") else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_locked(mark: Path) -> bool:
    """Whether the lab's process lives; a process number alone may belong to another process by now."""
    with mark.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def for_phase(chosen: Params, *, root: Path, programs: Callable[[], Mapping[str, str]]) -> Lab:
    """The lab of this run, the background lab of the phase, or a new one that ends with this process.

    `programs` is called only to start a lab, because finding the programs takes time.

    Raises:
        UsageError: the lab of that phase is another cluster's.
    """
    owned = os.environ.get("FLUOBOOK_LAB")
    if lab := find(Path(owned) if owned else folder_of(chosen.phase)):
        _require_cluster(lab, chosen)
        return lab
    if owned:
        raise FluobookError(f"the lab of this run ({owned}) has ended", remedy="start the run again")
    lab = own(chosen, root=root, programs=programs())
    remark = f"a lab was started for this notebook and ends with its kernel; `fluobook lab up {chosen.phase}` keeps one"
    return replace(lab, remarks=(*lab.remarks, remark))


def _require_cluster(lab: Lab, chosen: Params) -> None:
    """Two params files may name the same phase; the lab of one has no server of the other."""
    try:
        cluster = json.loads((lab.folder / "order.json").read_text())["platform"]["cluster"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if cluster != (described := chosen.platform.cluster.name):
        raise UsageError(
            f"the lab of {chosen.phase} is up for cluster {cluster}, and the params describe {described}",
            remedy=f"give the params a `phase` of their own, or run: fluobook lab down {chosen.phase}",
        )


def own(chosen: Params, *, root: Path, programs: Mapping[str, str], **options: Any) -> Lab:
    """Start a lab in a temporary folder; both are removed when this process ends. `options` are those of `start`."""
    folder = Path(tempfile.mkdtemp(prefix=temporary_prefix("lab")))
    lab = start(chosen, folder, root=root, programs=programs, owner=os.getpid(), **options)
    atexit.register(end, lab, forget=True)
    return lab


def start(
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
    """Start a lab process and wait until it is ready.

    Args:
        chosen: the phase and the platform.
        folder: the state folder; the content of an earlier lab is removed.
        root: the repository, whose tree Argo CD reads.
        programs: the paths of git, kubectl, helm and sops.
        owner: the process with which the lab ends; None keeps it until `end`.
        speed: the time scale: simulated seconds per real second.
        seed: the random seed.
        faults: names of the faults to inject.
        engines: the real engine's programs, by name; without them, Kubernetes and Argo CD are embedded.
        charts: "stand-ins", "upstream" or a folder with real charts; by default FLUOBOOK_LAB_CHARTS, or stand-ins.

    Raises:
        UsageError: a lab is already up in the folder, a fault is unknown, or there are no such charts.
        BadFile: a chart in the folder is damaged.
        FluobookError: it did not become ready (with the end of its log), or the system does not allow it.
    """
    if find(folder):
        raise UsageError(
            f"the lab of {folder.name} is up already", remedy=f"use it, or run: fluobook lab down {folder.name}"
        )
    if engines:
        require_namespaces()
    try:
        Faults(faults)
    except ValueError as error:
        raise UsageError(str(error), remedy="`fluobook lab faults` lists them") from None
    used, _ = _charts(charts, chosen, root, programs)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    order = {
        "phase": chosen.phase,
        "platform": dict(chosen.platform.written),
        "root": str(root),
        "owner": owner,
        "programs": dict(programs),
        "speed": speed or float(os.environ.get("FLUOBOOK_LAB_SPEED", DEFAULT_SPEED)),
        "seed": seed,
        "faults": list(faults),
        "engines": dict(engines or {}),
        **used,
    }
    (folder / "order.json").write_text(json.dumps(order))
    with (folder / "lab.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fluobook_lab", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=inherited(),
            start_new_session=True,
        )

    def ready() -> Lab | bool | None:
        return find(folder) or (False if process.poll() is not None else None)

    try:
        lab = wait_until(ready, what="the lab", timeout=READY, cancellation=Cancellation(), interval=POLL)
    except DeadlineExceeded:
        lab = False
    if isinstance(lab, Lab):
        return lab
    process.kill()
    tail = "\n".join((folder / "lab.log").read_text(errors="replace").splitlines()[-15:])
    if shutil.disk_usage(folder).free < MIB:
        raise unwritable(folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    raise FluobookError("the lab did not start", cause=tail, remedy=f"read {folder / 'lab.log'}")


def _charts(
    charts: str, chosen: Params, root: Path, programs: Mapping[str, str]
) -> tuple[dict[str, Any], Folder | None]:
    """What the order of a lab says about its charts, and the folder of the real ones.

    Raises:
        UsageError: the folder does not exist, or none of the tree's charts can be had.
        BadFile: a chart in the folder is damaged.
    """
    charts = charts or os.environ.get("FLUOBOOK_LAB_CHARTS") or STANDINS
    if charts == STANDINS:
        return {"charts": charts, "folder": "", "causes": {}}, None
    path, causes = Path(charts).expanduser().absolute(), {}
    if charts == UPSTREAM:
        path, kept = pull_charts(chosen, root=root, programs=programs)
        causes = {Pin(row.repository, row.chart, row.version).id: row.cause for row in kept if row.cause}
    real = Folder(path, git=Path(programs["git"]), causes=causes)
    sources = resolve(root, chosen.platform.gitops.repository, real)
    if not any(source.used == "real" for source in sources):
        reasons = "; ".join(f"{source.name}: {source.cause}" for source in sources[:3])
        if charts == UPSTREAM:
            remedy = "`fluobook charts pull` on a machine with a way out, then --charts FOLDER; or use the stand-ins"
            raise FluobookError("none of the tree's charts can be fetched", cause=reasons, remedy=remedy)
        remedy = "name a folder with the chart archives (*.tgz) and git repositories, or use the stand-ins"
        raise UsageError(f"--charts {charts} has nothing that the tree names", cause=reasons, remedy=remedy)
    return {"charts": charts if charts == UPSTREAM else str(path), "folder": str(path), "causes": causes}, real


def pull_charts(chosen: Params, *, root: Path, programs: Mapping[str, str]) -> tuple[Path, list[Kept]]:
    """Fetch the charts and git repositories that the tree names into the cache; the folder, and a row for each."""
    from fluobook_lab.charts import upstream  # noqa: PLC0415  the HTTP clients are only for this

    folder, platform = cache_folder() / "charts", chosen.platform
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pins(root, platform.gitops.repository)
    return folder, upstream.pull(wanted, folder, git=Path(programs["git"]), platform=platform)


def diff_charts(
    chosen: Params,
    applications: Sequence[Mapping[str, Any]],
    *,
    charts: str,
    root: Path,
    programs: Mapping[str, str],
) -> tuple[list[Difference], dict[str, str]]:
    """How the stand-ins differ from the real charts, and why some Applications are not compared.

    Args:
        chosen: the phase and the platform.
        applications: the Applications of the tree for the phase, without mirrors.
        charts: "upstream", or the folder of the real charts.
        root: the repository.
        programs: git, helm, kubectl and sops.
    """
    from fluobook_lab.charts import diff  # noqa: PLC0415  the repo-server is only for this

    _, real = _charts(charts, chosen, root, programs)
    if real is None:
        raise UsageError("--charts stand-ins has nothing to compare", remedy="name upstream, or a folder")
    return asyncio.run(diff.compare(applications, real, programs, chosen.platform.versions.kubernetes))


def activity(lab: Lab) -> dict[str, Any]:
    """What happened in a lab so far: its requests, Applications and critical paths; requested with a signal."""
    path = lab.folder / "activity.json"
    path.unlink(missing_ok=True)
    _await(lab, signal.SIGUSR1, "the lab's activity", path.exists)
    return dict(json.loads(path.read_text()))


def inject(lab: Lab, faults: Sequence[str], settings: Sequence[str] = ()) -> None:
    """Let a lab inject these faults and no others from now on; requested with a signal.

    Args:
        lab: the lab.
        faults: their names.
        settings: "path=value" each: params of every run in this lab meanwhile, such as a short deadline.
    """
    write_json(lab.folder / _SETTINGS, with_overrides({}, tuple(settings)))
    path = lab.folder / "faults.json"
    write_json(path, list(faults))
    _await(lab, signal.SIGUSR2, "the lab to change its faults", lambda: not path.exists())


def resemble(lab: Lab, state: Mapping[str, Any]) -> list[str]:
    """Let a lab that was brought up resemble a platform; what it could not take over. Requested with a signal.

    Args:
        lab: the lab, with the embedded engine.
        state: the document of `fluobook.stages.likeness`.

    Raises:
        FluobookError: the lab ended over it.
    """
    answer = lab.folder / "resembled.json"
    answer.unlink(missing_ok=True)
    write_json(lab.folder / "state.json", state)
    _await(lab, signal.SIGUSR2, "the lab to resemble the platform", answer.exists)
    return list(json.loads(answer.read_text()))


def _await(lab: Lab, number: signal.Signals, what: str, is_done: Callable[[], bool]) -> None:
    """Send a signal to a lab's process, and wait for its effect."""
    os.kill(lab.pid, number)
    wait_until(
        lambda: is_done() or None,
        what=what,
        timeout=READY,
        cancellation=Cancellation(),
        interval=POLL,
        remedy=f"read {lab.folder / 'lab.log'}",
    )


def end(lab: Lab, *, forget: bool = False) -> None:
    """End a lab and wait until its process has ended; `forget` also removes its folder."""
    try:
        os.kill(lab.pid, signal.SIGTERM)
        wait_until(
            lambda: True if _has_ended(lab.pid) else None,
            what="the end of the lab",
            timeout=END,
            cancellation=Cancellation(),
            interval=POLL,
        )
    except DeadlineExceeded:
        os.kill(lab.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    (lab.folder / "lab.json").unlink(missing_ok=True)
    if forget:
        shutil.rmtree(lab.folder, ignore_errors=True)


def _has_ended(pid: int) -> bool:
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
    except ChildProcessError:
        pass
    return not is_alive(pid)
