"""`fluobook open`: a run by hand, in JupyterLab."""

from __future__ import annotations

import os
import signal
import webbrowser
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluobook import lab as labs
from fluobook.cli.options import Charts, Phase, Target, chosen, require_own_lab, root
from fluobook.environment import inherited

if TYPE_CHECKING:
    from fluobook.lab import Lab
    from fluobook.params import Params


def open_run(
    phase: Phase = "phase1",
    target: Target = "lab",
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    charts: Charts = "",
) -> int:
    """Work by hand: a new run folder, JupyterLab in it, and a lab if none is up. Example: fluobook open phase1."""
    loaded = chosen(phase, [])
    _print(f"opening {loaded.phase}: loading JupyterLab's libraries")
    from fluobook.run import by_hand
    from fluobook.run.signals import Signals

    if already := by_hand.opened(root() / "runs", loaded.phase, target):
        _print(f"{loaded.phase} is open already, in {already[0]}\n{already[1]}")
        return 0
    signals, provider = Signals(), labs.provider() if target == "lab" else None
    kept = provider.find(provider.folder_of(loaded.phase)) if provider else None
    if kept or not provider:
        require_own_lab(loaded.phase, kept, charts=charts)
    lab = kept
    with signals.handled(signal.SIGHUP):
        try:
            if provider and not lab:
                _print("starting a lab")
                path, programs = provider.folder_of(loaded.phase), labs.programs()
                lab = provider.start(loaded, path, root=root(), programs=programs, owner=os.getpid(), charts=charts)
            folder = _new_run(loaded, str(Path(phase).resolve()) if Path(phase).suffix else phase, lab)

            def show(server: by_hand.Server) -> None:
                ending = "Ctrl-C ends JupyterLab" + ("" if lab is kept else " and the lab") + "; the run folder stays"
                remarks = lab.remarks if lab else ()
                _print("\n".join([*remarks, _connected(loaded, lab), f"run folder: {folder}", server.url, ending]))
                if browser:
                    webbrowser.open(server.page)

            code = by_hand.run(folder, _environment(loaded, folder, lab), signals, report=_print, show=show)
        finally:
            if provider and lab and lab is not kept:
                provider.end(lab, forget=True)
    _print(f"report: {folder / 'report.html'}")
    return code


def _print(line: str) -> None:
    print(line, flush=True)


def _new_run(loaded: Params, phase: str, lab: Lab | None) -> Path:
    """A run folder with the notebooks and the begin of the journal; `phase` is what the notebooks open."""
    from fluobook.context import beginning_of
    from fluobook.journal.folder import new_folder
    from fluobook.journal.journal import Journal
    from fluobook.redact import Redactor
    from fluobook.run.by_hand import copy_notebooks
    from fluobook.stages.catalogue import DAY_TWO, STAGES

    folder, target = new_folder(root() / "runs", loaded.phase), "lab" if lab else "live"
    copy_notebooks(root(), folder, phase=phase, target=target)
    with closing(Journal(folder / "events.jsonl", Redactor())) as journal:
        stages = [stage.name for stage in (*STAGES, *DAY_TWO)]
        begun = beginning_of(loaded.phase, loaded.platform, stages, root=root(), target=target, lab=lab)
        journal.write("run-started", **begun)
    return folder


def _environment(loaded: Params, folder: Path, lab: Lab | None) -> dict[str, str]:
    """The environment of JupyterLab and its kernels: it names the run folder, the lab, and a live run's secrets."""
    from fluobook.params.secrets import secret_variables

    environment = inherited(() if lab else secret_variables(loaded.platform)) | {"FLUOBOOK_RUN": str(folder)}
    return environment | ({"FLUOBOOK_LAB": str(lab.folder)} if lab else {})


def _connected(loaded: Params, lab: Lab | None) -> str:
    """What the notebooks act on, in one line."""
    opened = f"{loaded.phase} is open: cluster {loaded.platform.cluster.name}"
    if lab:
        return f"{opened}, rehearsal in the lab ({lab.engine} engine, process {lab.pid})"
    hosts = ", ".join(f"{endpoint.name} {endpoint.url}" for endpoint in loaded.platform.proxmox)
    return f"{opened}, LIVE: Kubernetes API {loaded.platform.api_address}, Proxmox VE {hosts}"
