"""`fluobook rehearse`: a runbook in a lab that resembles the live platform, before it runs there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fluobook import lab as labs
from fluobook.cli import options, progress
from fluobook.cli.options import Charts, Phase, Settings, chosen, masked, root
from fluobook.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from fluobook.run.headless import RunRequest
    from fluobook.run.rehearsal import Ready, Script
    from fluobook.stages.core.stage import Stage


def rehearse(
    phase: Phase,
    runbook: Annotated[str, typer.Argument(metavar="RUNBOOK", help="A day-2 runbook, such as upgrade-talos.")],
    like: Annotated[
        Literal["live", "lab"],
        typer.Option(help="What it resembles: the platform of the params, or the phase's lab that is up."),
    ] = "live",
    settings: Settings = [],
    out: Annotated[
        Path | None,
        typer.Option(parser=options.output_folder, help="The run folder; a new one below runs/ if not given."),
    ] = None,
    charts: Charts = "",
) -> int:
    """Run a runbook in a new lab like the live platform, which is only read. Example: fluobook rehearse phase1 nodes.

    Exits with 4 if the run passed and the lab is known to differ from the platform.
    """
    from fluobook.cli.lab import running as running_lab
    from fluobook.errors import in_commands
    from fluobook.journal import folder
    from fluobook.run import headless, kernels, rehearsal
    from fluobook.stages import likeness
    from fluobook.stages.core.plan import Plan

    loaded, stage = chosen(phase, settings), _rehearsable(runbook)
    if like == "lab":
        running_lab(loaded, phase)
    if out:
        folder.require_new(out.resolve())
    with kernels.kernel_template() as template, masked() as redactor:
        place = "LIVE" if like == "live" else rehearsal.source_of(loaded, like)
        _print(f"reading {loaded.platform.cluster.name}, {place}; nothing is changed there")
        script = rehearsal.read_live(stage, loaded, root=root(), like=like, redactor=redactor)
        _print(f"{stage.name}, {place}: {script.summary}")
        if isinstance(script.plan, Plan) and not script.plan.actions:
            _print(f"nothing to rehearse; `fluobook run {in_commands(loaded.phase, like)} {stage.name}` verifies it")
            return 0
        running, provider = likeness.as_running(loaded, script.state), labs.provider()
        lab = provider.own(running, root=root(), programs=labs.programs(), charts=charts)
        ready = rehearsal.prepare(script, loaded, lab, provider=provider, root=root(), report=_print)
        _describe(script, ready)
        run_folder = folder.named_folder(out.resolve()) if out else folder.new_folder(root() / "runs", loaded.phase)
        request = rehearsal.request_of(script, ready, loaded, folder=run_folder, root=root())
        code = headless.run(request, template=template, report=progress.print_summary)
    return _concluded(ready, request, code)


def _rehearsable(runbook: str) -> Stage:
    from fluobook.stages import catalogue

    stage = catalogue.find(runbook)
    if stage not in catalogue.DAY_TWO or not stage.uses:
        remedy = f"fluobook run PHASE --only {stage.name}, whose target is the lab unless another is named"
        raise UsageError(f"{stage.name} is no work on a platform in operation", remedy=remedy)
    return stage


def _describe(script: Script, ready: Ready) -> None:
    from fluobook.stages.likeness import NOT_COPIED

    same = f"the plan in the lab is the live one, {script.digest}" if script.digest else "the lab refuses it as well"
    _print(f"not copied from the platform: {NOT_COPIED}")
    _print("\n".join(f"the lab differs: {each}" for each in ready.unlike) or same)


def _concluded(ready: Ready, request: RunRequest, code: int) -> int:
    _print(f"report: {request.folder / 'report.html'}")
    if not code and ready.unlike:
        _print("it passed, but the lab differs from the platform in what is said above")
        return CheckFailed.exit_code
    return code


def _print(line: str) -> None:
    print(line, flush=True)
