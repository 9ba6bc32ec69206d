"""The commands, except for those of `fluobook lab`. What takes long to import is imported when a command needs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from fluobook import files
from fluobook import lab as labs
from fluobook.cli import options, progress
from fluobook.cli.options import ARGUMENTS, Charts, Engine, Phase, Settings, Target, chosen, engines, masked, root
from fluobook.clients.tools import find
from fluobook.environment import home
from fluobook.errors import (
    EXIT_CHANGES_PENDING,
    PHASE,
    BadFile,
    CheckFailed,
    NotFound,
    ParamsError,
    StageMissing,
    UsageError,
)

if TYPE_CHECKING:
    from fluobook.gitops.versions import Pin, Publish, Published
    from fluobook.lab import Lab
    from fluobook.params import Params, Platform
    from fluobook.stages.core.stage import Stage


Runbook = Annotated[str, typer.Argument(metavar="[RUNBOOK]", help="Only this stage or runbook, such as health.")]


def run(
    phase: Phase,
    runbook: Runbook = "",
    target: Target = "lab",
    approve: Annotated[str, typer.Option(help='What is approved in advance: "all" or "stage=digest,…".')] = "",
    cluster: Annotated[
        str, typer.Option(help="The cluster's name; needed with --approve all on a live platform.")
    ] = "",
    first: Annotated[str, typer.Option("--from", metavar="STAGE", help="Begin with this stage.")] = "",
    only: Annotated[list[str], typer.Option(metavar="STAGE", help="Run only this stage; may be repeated.")] = [],
    settings: Settings = [],
    out: Annotated[
        Path | None,
        typer.Option(parser=options.output_folder, help="The run folder; a new one below runs/ if not given."),
    ] = None,
    fault: Annotated[list[str], typer.Option(metavar="NAME", help="Inject a fault into the lab of this run.")] = [],
    engine: Engine = None,
    charts: Charts = "",
) -> int:
    """Run notebooks headless: all stages, or one runbook. Example: fluobook run phase1 --approve all."""
    from fluobook.context import beginning_of
    from fluobook.journal import folder
    from fluobook.notebook import parse_approval
    from fluobook.params.secrets import secret_variables
    from fluobook.run import headless, kernels

    loaded = chosen(phase, settings)
    stages = _stages(first, [*filter(None, [runbook]), *only])
    approved = ",".join(filter(None, [approve, f"cluster={cluster}" if cluster else ""]))
    parse_approval(approved)
    lab = _kept_lab(loaded.phase) if target == "lab" else None
    if target == "live" or lab:
        options.require_own_lab(loaded.phase, lab, fault=fault[0] if fault else "", engine=engine or "", charts=charts)
    run_folder = folder.named_folder(out.resolve()) if out else folder.new_folder(root() / "runs", loaded.phase)
    platform = dict(loaded.platform.written)
    variables = sorted(secret_variables(loaded.platform)) if target == "live" else []
    with kernels.kernel_template() as template:
        if target == "lab" and lab is None:
            programs = labs.programs()
            lab = labs.provider().own(
                loaded, root=root(), programs=programs, faults=fault, engines=engines(engine), charts=charts
            )
        request = headless.RunRequest(
            loaded.phase,
            platform,
            target,
            approved,
            stages,
            root(),
            run_folder,
            lab.folder if lab else None,
            variables,
            facts=beginning_of(
                loaded.phase,
                loaded.platform,
                [stage.name for stage in stages],
                root=root(),
                target=target,
                lab=lab,
            ),
        )
        if lab:
            print("\n".join(lab.remarks), flush=True)
        runs, conditions = folder.newest_first(root() / "runs"), labs.conditions(target, lab)
        with progress.shown(run_folder, runs, conditions, progress.print_summary) as report:
            code = headless.run(request, template=template, report=report)
    print(f"report: {run_folder / 'report.html'}")
    return code


def _kept_lab(phase: str) -> Lab | None:
    """The lab of the phase that `fluobook lab up` started, if it is up."""
    provider = labs.provider()
    return provider.find(provider.folder_of(phase))


def _stages(first: str, only: Sequence[str]) -> Sequence[Stage]:
    from fluobook.stages import catalogue

    if only and first:
        raise UsageError("--from and --only exclude each other", remedy="--only may be given several times")
    if only:
        return catalogue.numbered(only)
    begin = catalogue.find(first) if first else catalogue.STAGES[0]
    return catalogue.STAGES[catalogue.STAGES.index(begin) :] if begin in catalogue.STAGES else ()


def plan(phase: Phase, runbook: Runbook = "", target: Target = "lab", settings: Settings = []) -> int:
    """Show what every stage, or one runbook, would do. Changes nothing; exits 2 if there are changes.

    Example: fluobook plan phase1.
    """
    from fluobook.context import open_context
    from fluobook.notebook import for_approval
    from fluobook.stages import catalogue

    pending = False
    with masked() as redactor:
        context = open_context(chosen(phase, settings), root=root(), target=target, redactor=redactor)
        for stage in [catalogue.find(runbook)] if runbook else catalogue.STAGES:
            planned = stage.plan(context.platform, stage.observe(context.limited_to(stage.uses)))
            print(redactor.text(for_approval(planned, context).table().text()), end="\n\n", flush=True)
            pending = pending or bool(planned.actions)
    return EXIT_CHANGES_PENDING if pending else 0


def render(
    phase: Phase,
    out: Annotated[Path, typer.Option(parser=options.output_folder, help="Folder for the files.")],
    secrets: Annotated[
        Path | None, typer.Option(parser=options.file, help="A secrets bundle; without it, secrets are omitted.")
    ] = None,
    gitops: Annotated[
        bool, typer.Option("--gitops", help="Write the GitOps tree with the values of this phase instead.")
    ] = False,
    target: Annotated[
        Literal["lab", "live"], typer.Option(help="Source of the Cilium chart: lab (the lab's chart server) or live.")
    ] = "lab",
    settings: Settings = [],
) -> int:
    """Write what would be applied. Example: fluobook render phase1 --out build/phase1 --target live."""
    from fluobook.stages import rendering

    loaded = chosen(phase, settings)
    if gitops:
        written = rendering.write_gitops(loaded, root(), out)
    else:
        written = rendering.write_machines(_with_mirrors(loaded, target), root(), out, secrets)
    for path in written:
        print(path)
    return 0


def _with_mirrors(loaded: Params, target: str) -> Params:
    """The params with the chart sources of the target: those of a rehearsal are the lab's. All else stays."""
    if target == "live":
        return loaded
    from fluobook import params

    mirrors = labs.for_phase(loaded, root=root()).overlay["gitops"]["mirrors"]
    platform = params.overlay(loaded.platform, {"gitops": {"mirrors": mirrors}})
    return params.Params.model_construct(phase=loaded.phase, platform=platform)


def check() -> int:
    """Check the repository alone: params, the GitOps tree, secrets. Example: fluobook check."""
    from fluobook.gitops.check import all_findings

    findings = all_findings(root())
    problems, warnings = _check_params(root(), {finding.file for finding in findings if finding.rule == "readable"})
    lines = [*problems, *(finding.line_of_text() for finding in findings)]
    for line in warnings:
        print(line, file=sys.stderr)
    for line in lines:
        print(line)
    print("1 finding" if len(lines) == 1 else f"{len(lines)} findings")
    return CheckFailed.exit_code if lines else 0


def _check_params(repository: Path, unreadable: set[str]) -> tuple[list[str], list[str]]:
    """The problems in the params of every phase that can be read, and the warnings about them, one line each."""
    from fluobook import params

    def reported(file: str, error: ParamsError) -> list[str]:
        listed = () if file in unreadable else error.problems or (error.message,)
        return [f"{file}: [params] {problem}" for problem in listed]

    try:
        params.pins(repository)
    except ParamsError as error:  # without the pins no params can be read
        return reported("params/versions.yaml", error), []
    problems: list[str] = []
    warnings: list[str] = []
    owners: dict[tuple[str, str], str] = {}
    for path in params.files(repository).values():
        file = path.relative_to(repository).as_posix()
        try:
            loaded = params.load(path, root=repository)
        except ParamsError as error:
            problems += reported(file, error)
            continue
        warnings += [f"{file}: warning: {sentence}" for sentence in params.warnings(loaded.platform)]
        for name in (("phase", loaded.phase), ("platform.cluster.name", loaded.platform.cluster.name)):
            if name in owners:
                problems.append(
                    f"{file}: [params] {name[0]} = {name[1]!r}: is used by {owners[name]} already;"
                    " give each file its own, because labs, VMs and secrets carry the name"
                )
            owners.setdefault(name, file)
    return problems, warnings


def doctor() -> int:
    """Check this machine: Python, tools, packages, folders, labs. Example: fluobook doctor."""
    from fluobook.cli.doctor import examine

    checks = examine(root())
    for check in checks:
        print(f"{'✓' if check.passed else '✗'} {check.name:<12} {check.result}")
        if check.remedy and not check.passed:
            print(f"  remedy: {check.remedy}")
    return 0 if all(check.passed for check in checks) else CheckFailed.exit_code


def explain(code: Annotated[str, typer.Argument(help="A code such as F28, as errors show it.")]) -> int:
    """Explain a known failure: causes, remedy, next command. Example: fluobook explain F28."""
    from fluobook import failures

    print(failures.entry(code).text())
    return 0


def kubeconfig(phase: Phase, target: Target = "lab", settings: Settings = []) -> int:
    """Print the path of the kubeconfig. Example: KUBECONFIG=$(fluobook kubeconfig phase1) helm list -A.

    If there is none, the exit code is 1 and the printed path cannot be opened: an empty one would mean another cluster.
    """
    print(_cluster_file("kubeconfig", "current-context", chosen(phase, settings), target))
    return 0


def _cluster_file(name: str, key: str, loaded: Params, target: str) -> Path:
    """The kubeconfig or talosconfig of a platform.

    Args:
        name: its file name.
        key: the key that names its context; without one, the program would use another cluster.
        loaded: the params.
        target: lab or live.

    Raises:
        StageMissing: there is none yet.
        BadFile: it is damaged.
    """
    cluster = home() / loaded.platform.cluster.name
    folder = labs.provider().folder_of(loaded.phase) / "cluster" if target == "lab" else cluster
    path = folder / name
    if not path.exists():
        remedy = f"fluobook run {PHASE} writes it in stage bootstrap-kubernetes"
        if target == "lab":
            remedy = f"fluobook lab up {PHASE}, then: fluobook run {PHASE} --approve all"
        raise StageMissing(f"there is no {name} of {loaded.phase} yet ({path})", remedy=remedy)
    documents = files.read_yaml(path)
    if not (len(documents) == 1 and isinstance(documents[0], dict) and documents[0].get(key)):
        remedy = f"delete it, then: fluobook run {PHASE} --only bootstrap-kubernetes"
        raise BadFile(path, f"has no {key}", remedy=remedy)
    return path


def kubectl(context: typer.Context, phase: Phase, target: Target = "lab", settings: Settings = []) -> int:
    """Run kubectl on the platform, never on another cluster. Example: fluobook kubectl phase1 -- get nodes."""
    program = find("kubectl").path
    return _run_on_cluster(program, "kubeconfig", "current-context", chosen(phase, settings), target, context)


def talosctl(context: typer.Context, phase: Phase, target: Target = "lab", settings: Settings = []) -> int:
    """Run talosctl on the platform, never on another cluster. Example: fluobook talosctl phase1 -- version."""
    program = Path(shutil.which("talosctl") or "")
    if not program.name:
        raise NotFound("there is no talosctl on the PATH", system="fluobook", remedy="install it from Talos' releases")
    return _run_on_cluster(program, "talosconfig", "context", chosen(phase, settings), target, context)


_OTHER_CLUSTER = re.compile(r"--(kubeconfig|talosconfig|server|cluster|context)(=|$)|-s")


def _run_on_cluster(
    program: Path, config: str, key: str, loaded: Params, target: str, context: typer.Context
) -> NoReturn:
    """Become the program, with the platform's configuration file: exit code, terminal and signals are its own."""
    arguments = context.meta.get(ARGUMENTS, [])
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if other := next(filter(_OTHER_CLUSTER.match, own), None):
        remedy = f"run {program.name} itself to use another cluster"
        raise UsageError(f"{other} does not fit: the cluster is that of {loaded.phase}", remedy=remedy)
    path = str(_cluster_file(config, key, loaded, target))
    from fluobook.params.secrets import secret_variables

    own_secrets = secret_variables(loaded.platform)
    env = {name: value for name, value in os.environ.items() if name not in own_secrets} | {config.upper(): path}
    os.execve(program, [program.name, f"--{config}", path, *arguments], env)  # noqa: S606 (no shell is wanted)


def runs(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> int:
    """List the runs, the newest first. Example: fluobook runs."""
    from fluobook.display.table import Table
    from fluobook.journal.folder import newest_first
    from fluobook.journal.history import run_of

    listed = [run_of(folder) for folder in newest_first(root() / "runs")]
    if as_json:
        print(json.dumps([asdict(run) for run in listed], indent=2))
        return 0
    rows = [
        [
            *(run.run, run.phase, run.target, run.started[:19].replace("T", " "), f"{run.seconds:.1f} s"),
            *(
                "; ".join(filter(None, (run.outcome, run.problem))),
                "" if run.exit_code is None else run.exit_code,
                run.charts,
                run.commit,
            ),
        ]
        for run in listed
    ]
    columns = ["run", "phase", "target", "started (UTC)", "duration", "outcome", "exit code", "charts", "commit"]
    print(Table("runs" if rows else "there are no runs yet", columns, rows, limit=len(rows)).text())
    return 0


def report(
    run: Annotated[
        list[Path] | None, typer.Argument(parser=options.existing_folder, help="A run folder; the newest if not given.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Say whether the record of the run was altered, torn or cut.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Compare two runs, the earlier one first.")] = False,
) -> int:
    """Write the HTML report of a run again and print its path. Example: fluobook report runs/MY-RUN."""
    from fluobook.journal.folder import newest_first
    from fluobook.redact import Redactor
    from fluobook.run.compare import differences
    from fluobook.run.report import write_report

    made = [] if run else [folder for folder in newest_first(root() / "runs") if _is_run(folder)]
    folders = run or made[: 2 if diff else 1][::-1]
    if len(folders) != (2 if diff else 1) or (diff and verify):
        remedy = "fluobook report --diff EARLIER LATER" if diff else "fluobook report RUN"
        raise UsageError("--diff compares two runs; all else is about one run", remedy=remedy)
    if missing := next((folder for folder in folders if not _is_run(folder)), None):
        remedy = "fluobook run phase1 makes one"
        raise NotFound(f"there is no run in {missing}", system="fluobook", remedy=remedy)
    if diff:
        print("\n\n".join(table.text() for table in differences(*folders)))
        return 0
    if verify:
        return _verify(folders[0])
    print(write_report(folders[0], Redactor()))
    return 0


def _is_run(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in ("summary.json", "events.jsonl"))


def _verify(folder: Path) -> int:
    """Say whether the record of a run is as the run wrote it."""
    from fluobook.journal import chain
    from fluobook.journal.journal import altered

    problems = altered(folder)
    for problem in problems:
        print(f"✗ {problem}")
    if problems:
        return CheckFailed.exit_code
    head = chain.head(folder / "events.jsonl")
    print(f"✓ {folder.name} is as the run wrote it: {head.lines} lines, the last with SHA-256 {head.sha256}")
    return 0


def tools() -> int:
    """List the programs fluobook calls, where each was found and its version. Example: fluobook tools."""
    from fluobook.clients.tools import inventory
    from fluobook.display.table import Table

    called = [[tool.name, tool.version, tool.source, str(tool.path)] for tool in inventory()]
    print(Table("called by fluobook", ["program", "version", "from", "path"], called))
    with suppress(NotFound):  # the lab is not installed
        engines = labs.provider().engine_inventory(root())
        real = [[engine.name, engine.version, engine.purpose, str(engine.path or engine.source)] for engine in engines]
        print("\n" + str(Table("called by the lab's engine `real`", ["program", "version", "for", "path"], real)))
    return 0


def version() -> int:
    """Print the version of fluobook and the versions it pins. Example: fluobook version."""
    print(f"fluobook {metadata.version('fluobook')}")
    from fluobook import params

    for name, pinned in params.pins(root()).items():
        print(f"{name:<11} {pinned}")
    return 0


def versions(phase: Phase = "phase1", target: Target = "live", settings: Settings = []) -> int:
    """Compare every version with what its source publishes. Example: fluobook versions phase1.

    Nothing is changed. The lab serves charts, git repositories and Talos images in the pinned versions alone.
    """
    import datetime as dt

    from fluobook import gitops, params
    from fluobook.display.tree import versions_table
    from fluobook.gitops.versions import compare, pins_of

    loaded = chosen(phase, settings)
    platform = loaded.platform
    if target == "lab":
        platform = params.overlay(platform, labs.for_phase(loaded, root=root()).overlay)
    pins = pins_of(platform, gitops.for_phase(platform, gitops.of(platform, root())), root())
    if target == "lab":
        pins = [pin for pin in pins if pin.kind in {"chart", "git", "talos"}]
    running, problem = _running(loaded, target)
    rows = compare(pins, _publisher(platform), platform.supported, dt.datetime.now(dt.UTC).date(), running)
    print(versions_table(rows).text())
    failed = [row for row in rows if row.problem]
    for row in failed:
        print(f"{row.pin.component}: {row.problem}", file=sys.stderr)
    if problem:
        print(f"what runs is unknown: {problem}", file=sys.stderr)
    return 1 if failed else 0


def _publisher(platform: Platform) -> Publish:
    """Lists what the sources of versions publish, by the mirrors and certificates of the params."""
    from fluobook.clients import git, helm, releases
    from fluobook.clients.factory import FactoryClient
    from fluobook.gitops.versions import Published

    def publish(pin: Pin) -> list[Published]:
        if pin.kind == "chart":
            listed = helm.versions(pin.source, pin.chart, ca_file=platform.ca_file(pin.source))
            return [Published(each.version, each.app_version, each.deprecated) for each in listed]
        if pin.kind == "talos":
            at = ("factory.talos.dev", 443)
            factory = FactoryClient(address=platform.route(*at), ca_file=platform.trusted_ca(*at))
            with closing(factory):
                return [Published(version) for version in factory.versions()]
        if pin.kind == "kubernetes":
            url = platform.gitops.mirrored(releases.KUBERNETES)
            names = releases.kubernetes(url, since=pin.version, ca_file=platform.ca_file(url))
        elif pin.kind == "package":
            url = platform.gitops.mirrored(releases.PACKAGES)
            names = releases.packages(pin.source, url, ca_file=platform.ca_file(url))
        else:
            url = platform.gitops.mirrored(pin.source)
            names = git.tags(url, ca_file=platform.ca_file(url))
        return [Published(name) for name in names]

    return publish


def _running(loaded: Params, target: str) -> tuple[dict[str, str], str]:
    """The versions that the platform runs, by component, and why they are unknown."""
    from fluobook.clients.kube import Kube
    from fluobook.errors import FluobookError
    from fluobook.gitops.versions import running

    try:
        (kubeconfig,) = files.read_yaml(_cluster_file("kubeconfig", "current-context", loaded, target))
        with closing(Kube.from_kubeconfig(kubeconfig)) as kube:
            return running(kube.list("v1", "Node"), kube.list("argoproj.io/v1alpha1", "Application", "argocd")), ""
    except FluobookError as error:
        return {}, error.message


COMMANDS: tuple[Callable[..., int], ...] = (
    run,
    plan,
    render,
    check,
    doctor,
    explain,
    kubeconfig,
    kubectl,
    talosctl,
    runs,
    report,
    tools,
    version,
    versions,
)
