"""The life of a lab: started, found, joined and ended; one process, owned by whoever needs it.

`fluobook lab up` keeps a lab of a phase in the background. Without one, a run, a plan or a single notebook owns a lab
for as long as it needs it; it dies with its owner.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.errors import FluobookError, UsageError
from fluobook.params import Params, home
from fluobook_lab.engines.network import require_namespaces
from fluobook_lab.faults import FAULTS, Faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["FAULTS", "Lab", "end", "find", "folder_of", "for_phase", "own", "start", "story"]

READY = 60.0
"""Seconds that a lab may take to say that it is ready."""

DEFAULT_SPEED = 60.0
"""World seconds per second: what takes a minute on hardware takes a second here."""


@dataclass(frozen=True)
class Lab:
    """A lab that is up.

    Args:
        folder: its state folder.
        overlay: what the platform's params become when they are rehearsed in it.
        pid: its process.
        engine: what plays Kubernetes and Argo CD in it: "embedded" or "real".
        remarks: what a person should know about it.
    """

    folder: Path
    overlay: Mapping[str, Any]
    pid: int
    engine: str = "embedded"
    remarks: tuple[str, ...] = ()

    @property
    def cluster_folder(self) -> Path:
        """Where the cluster's own files are kept: bundle, kubeconfig, talosconfig, lock."""
        return self.folder / "cluster"


def folder_of(phase: str) -> Path:
    """The state folder of the lab that is kept for a phase."""
    return home() / "lab" / phase


def find(folder: Path) -> Lab | None:
    """The lab whose state folder this is, if it is up."""
    try:
        told = json.loads((folder / "lab.json").read_text())
        lab = Lab(folder, told["overlay"], told["pid"], told["engine"])
        return lab if _held(folder / "alive") else None
    except (OSError, ValueError, KeyError):
        return None


def _held(mark: Path) -> bool:
    """Whether the process that wrote the folder lives; its number alone may be another's by now."""
    with mark.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def for_phase(chosen: Params, *, root: Path, programs: Callable[[], Mapping[str, str]]) -> Lab:
    """The lab to use: the one this run owns, the one that is kept up, or a new one that ends with this process.

    `programs` is called only if a lab is started: to find programs takes a moment.
    """
    owned = os.environ.get("FLUOBOOK_LAB")
    if lab := find(Path(owned) if owned else folder_of(chosen.phase)):
        return lab
    if owned:
        raise FluobookError(f"the lab of this run ({owned}) is not up any more", remedy="start the run again")
    lab = own(chosen, root=root, programs=programs())
    remark = f"a lab was started for this notebook and ends with its kernel; `fluobook lab up {chosen.phase}` keeps one"
    return replace(lab, remarks=(remark,))


def own(
    chosen: Params,
    *,
    root: Path,
    programs: Mapping[str, str],
    speed: float | None = None,
    faults: Sequence[str] = (),
    engines: Mapping[str, str] | None = None,
) -> Lab:
    """Start a lab in a temporary folder; it ends, and the folder goes, when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="fluobook-lab-"))
    lab = start(
        chosen, folder, root=root, programs=programs, owner=os.getpid(), speed=speed, faults=faults, engines=engines
    )
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
) -> Lab:
    """Start a lab process and wait until it is ready.

    Args:
        chosen: the phase and platform it plays.
        folder: its state folder; what an earlier lab left there is removed.
        root: the repository, whose tree Argo CD will read.
        programs: where git, kubectl, helm and sops are.
        owner: the process it dies with; None keeps it until `end`.
        speed: world seconds per real second.
        seed: what the lab's dice start from.
        faults: names of faults to play.
        engines: the real engine's programs, by name; without them, the lab plays Kubernetes and Argo CD itself.

    Raises:
        UsageError: a lab is already up there, or a fault is unknown.
        FluobookError: it did not become ready, and its log's tail is told; or the system does not let it.
    """
    if find(folder):
        raise UsageError(f"the lab of {folder.name} is up already", remedy="use it, or end it with `fluobook lab down`")
    if engines:
        require_namespaces()
    try:
        Faults(faults)
    except ValueError as error:
        raise UsageError(str(error), remedy="`fluobook lab faults` lists them") from None
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
    }
    (folder / "order.json").write_text(json.dumps(order))
    return _ready(folder, _begun(folder))


def _begun(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "lab.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "fluobook_lab", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _ready(folder: Path, process: subprocess.Popen[bytes]) -> Lab:
    until = time.monotonic() + READY
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if lab := find(folder):
            return lab
        time.sleep(0.05)
    process.kill()
    tail = "\n".join((folder / "lab.log").read_text(errors="replace").splitlines()[-15:])
    raise FluobookError("the lab did not come up", cause=tail, remedy=f"read {folder / 'lab.log'}")


def story(lab: Lab) -> dict[str, Any]:
    """What happened in a lab so far: its requests, Applications and critical path; asked for with a signal."""
    path = lab.folder / "world.json"
    path.unlink(missing_ok=True)
    os.kill(lab.pid, signal.SIGUSR1)
    until = time.monotonic() + READY
    while not path.exists():
        if time.monotonic() > until:
            raise FluobookError("the lab does not answer", remedy=f"read {lab.folder / 'lab.log'}")
        time.sleep(0.02)
    return dict(json.loads(path.read_text()))


def end(lab: Lab, *, forget: bool = False) -> None:
    """End a lab and wait until its process is gone; `forget` removes its folder too."""
    try:
        os.kill(lab.pid, signal.SIGTERM)
        until = time.monotonic() + 10
        while _alive(lab.pid) and time.monotonic() < until:
            time.sleep(0.05)
        if _alive(lab.pid):
            os.kill(lab.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    (lab.folder / "lab.json").unlink(missing_ok=True)
    if forget:
        shutil.rmtree(lab.folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
