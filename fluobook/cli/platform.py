"""Commands for a platform: run, plan, render."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluobook.cli.options import Engine, Phase, Settings, Target, as_platform, chosen, engines, masked, root
from fluobook.errors import EXIT_CHANGES_PENDING, UsageError

if TYPE_CHECKING:
    from fluobook.journal.journal import StageSummary
    from fluobook.lab import Lab
    from fluobook.params import Params
    from fluobook.stages.core.stage import Stage


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(run)
    app.command()(plan)
    app.command()(render)


def run(
    phase: Phase,
    target: Target = "lab",
    approve: Annotated[str, typer.Option(help='What is approved in advance: "all" or "stage=digest,…".')] = "",
    cluster: Annotated[
        str, typer.Option(help="The cluster's name; needed with --approve all on a live platform.")
    ] = "",
    first: Annotated[str, typer.Option("--from", metavar="STAGE", help="Begin with this stage.")] = "",
    only: Annotated[list[str], typer.Option(metavar="STAGE", help="Run only this stage; may be repeated.")] = [],  # noqa: B006
    settings: Settings = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="The run folder; a new one below runs/ if not given.")] = None,
    fault: Annotated[list[str], typer.Option(metavar="NAME", help="Inject a fault into the lab of this run.")] = [],  # noqa: B006
    engine: Engine = None,
) -> int:
    """Run the stages' notebooks headless. Example: fluobook run phase1 --approve all."""
    from fluobook import lab as labs  # noqa: PLC0415
    from fluobook.journal import folder  # noqa: PLC0415
    from fluobook.notebook import parse_approval  # noqa: PLC0415
    from fluobook.run import headless  # noqa: PLC0415
    from fluobook.run.kernels import kernel_template  # noqa: PLC0415

    params = chosen(phase, settings)
    stages = _stages(first, only)
    approved = ",".join(filter(None, [approve, f"cluster={cluster}" if cluster else ""]))
    parse_approval(approved)
    lab = _running_lab(params.phase) if target == "lab" else None
    if (fault or engine) and (lab or target == "live"):
        _require_own_lab(params.phase, lab, fault, engine)
    run_folder = folder.named_folder(out.resolve()) if out else folder.new_folder(root() / "runs", params.phase)
    with kernel_template() as template:
        if target == "lab" and lab is None:
            lab = labs.provider().own(
                params, root=root(), programs=labs.programs(), faults=fault, engines=engines(engine)
            )
        platform = as_platform(phase, settings, params)
        request = headless.RunRequest(
            params.phase, platform, target, approved, stages, root(), run_folder, lab.folder if lab else None
        )
        code = headless.run(request, template=template, report=_print_summary)
    print(f"report: {run_folder / 'report.html'}")  # noqa: T201
    return code


def _running_lab(phase: str) -> Lab | None:
    """The lab of the phase that `fluobook lab up` started, if it is up."""
    from fluobook import lab as labs  # noqa: PLC0415

    provider = labs.provider()
    return provider.find(provider.folder_of(phase))


def _require_own_lab(phase: str, lab: Lab | None, fault: Sequence[str], engine: str | None) -> None:
    """Refuse options that only a lab started by this run can have, if another lab is up or none is used."""
    if lab and not fault and engine == lab.engine:
        return
    option = f"--fault {fault[0]}" if fault else f"--engine {engine}"
    raise UsageError(
        f"{option.split(maxsplit=1)[0]} applies only to a lab that this run starts",
        cause=f"the lab of {phase} is up, with the {lab.engine} engine" if lab else "a live run has no lab",
        remedy=f"fluobook lab down {phase}; then run again, or: fluobook lab up {phase} {option}",
    )


def _print_summary(summary: StageSummary) -> None:
    with suppress(BrokenPipeError):  # the reader of the output is gone; the run goes on
        print(summary.line(), flush=True)  # noqa: T201
        if summary.error:
            print(summary.error, file=sys.stderr)  # noqa: T201


def _stages(first: str, only: Sequence[str]) -> Sequence[Stage]:
    from fluobook.stages import catalogue  # noqa: PLC0415

    if only and first:
        raise UsageError("--from and --only exclude each other", remedy="--only may be given several times")
    if only:
        return catalogue.numbered(only)
    begin = catalogue.find(first).number if first else 0
    return [stage for stage in catalogue.STAGES if stage.number >= begin]


def plan(phase: Phase, target: Target = "lab", settings: Settings = []) -> int:  # noqa: B006
    """Show what every stage would do. Changes nothing; exits 2 if there are changes. Example: fluobook plan phase1."""
    from fluobook.context import open_context  # noqa: PLC0415
    from fluobook.redact import Redactor  # noqa: PLC0415
    from fluobook.stages.catalogue import STAGES  # noqa: PLC0415

    pending = False
    redactor = Redactor()
    with masked(redactor):
        context = open_context(chosen(phase, settings), root=root(), target=target, redactor=redactor)
        for stage in STAGES:
            planned = stage.plan(context.platform, stage.observe(context.limited_to(stage.uses)))
            print(redactor.text(planned.table().text()), end="\n\n", flush=True)  # noqa: T201
            pending = pending or bool(planned.actions)
    return EXIT_CHANGES_PENDING if pending else 0


def render(
    phase: Phase,
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    secrets: Annotated[Path | None, typer.Option(help="A secrets bundle; without it, secrets are omitted.")] = None,
    gitops: Annotated[
        bool, typer.Option("--gitops", help="Write the GitOps tree with the values of this phase instead.")
    ] = False,
    target: Annotated[
        str, typer.Option(help="Source of the Cilium chart: lab (the lab's chart server) or live.")
    ] = "lab",
    settings: Settings = [],  # noqa: B006
) -> int:
    """Write what would be applied. Example: fluobook render phase1 --out build/phase1 --target live."""
    from fluobook.stages.rendering import write_gitops, write_machines  # noqa: PLC0415

    params = chosen(phase, settings)
    if gitops:
        written = write_gitops(params, root(), out)
    else:
        written = write_machines(params if target == "live" else _with_lab_mirrors(params), root(), out, secrets)
    for path in written:
        print(path)  # noqa: T201
    return 0


def _with_lab_mirrors(chosen: Params) -> Params:
    """The params with the chart sources of the lab; everything else stays as it is written."""
    from fluobook import lab as labs  # noqa: PLC0415
    from fluobook import params  # noqa: PLC0415

    mirrors = labs.for_phase(chosen, root=root()).overlay["gitops"]["mirrors"]
    platform = params.overlay(chosen.platform, {"gitops": {"mirrors": mirrors}})
    return params.Params.model_construct(phase=chosen.phase, platform=platform)
