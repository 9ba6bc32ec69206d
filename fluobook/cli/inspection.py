"""Commands that only read: check, doctor, explain, kubeconfig, report, tools, version, versions."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluobook.cli.options import Phase, Settings, Target, chosen, root
from fluobook.errors import CheckFailed, NotFound, ParamsError, StageMissing

if TYPE_CHECKING:
    from fluobook.params import Params, Platform


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (check, doctor, explain, kubeconfig, report, tools, version, versions):
        app.command()(command)


def check() -> int:
    """Check the repository alone: params, the GitOps tree, secrets. Example: fluobook check."""
    from fluobook.gitops.check import all_findings  # noqa: PLC0415

    problems, warnings = _check_params(root())
    lines = [*problems, *(finding.line_of_text() for finding in all_findings(root()))]
    for line in warnings:
        print(line, file=sys.stderr)  # noqa: T201
    for line in lines:
        print(line)  # noqa: T201
    print(f"{len(lines)} findings")  # noqa: T201
    return CheckFailed.exit_code if lines else 0


def _check_params(repository: Path) -> tuple[list[str], list[str]]:
    """The problems in the params of every phase, and the warnings about them, one line each."""
    from fluobook import params  # noqa: PLC0415

    problems, warnings = [], []
    owners: dict[tuple[str, str], str] = {}
    for phase in params.phases(repository):
        file = f"params/{phase}.yaml"
        try:
            loaded = params.load(phase, root=repository)
        except ParamsError as error:
            problems += [f"{file}: [params] {problem}" for problem in error.problems or (error.message,)]
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
    from fluobook.cli.doctor import examine  # noqa: PLC0415

    checks = examine(root())
    for check in checks:
        print(f"{'✓' if check.passed else '✗'} {check.name:<12} {check.result}")  # noqa: T201
        if check.remedy and not check.passed:
            print(f"  remedy: {check.remedy}")  # noqa: T201
    return 0 if all(check.passed for check in checks) else CheckFailed.exit_code


def explain(code: Annotated[str, typer.Argument(help="A code such as F28, as errors show it.")]) -> int:
    """Explain a known failure: causes, remedy, next command. Example: fluobook explain F28."""
    from fluobook.failures import entry  # noqa: PLC0415

    print(entry(code).text())  # noqa: T201
    return 0


def kubeconfig(phase: Phase, target: Target = "lab", settings: Settings = []) -> int:  # noqa: B006
    """Print the path of the kubeconfig. Example: kubectl --kubeconfig $(fluobook kubeconfig phase1) get nodes."""
    from fluobook import lab as labs  # noqa: PLC0415
    from fluobook import params  # noqa: PLC0415

    params_of_phase = chosen(phase, settings)
    if target == "lab":
        folder = labs.provider().folder_of(params_of_phase.phase) / "cluster"
    else:
        folder = params.home() / params_of_phase.platform.cluster.name
    path = folder / "kubeconfig"
    if not path.exists():
        raise StageMissing(
            f"there is no kubeconfig for {params_of_phase.phase} yet",
            remedy=f"fluobook run {phase} writes it in stage bootstrap-kubernetes",
        )
    print(path)  # noqa: T201
    return 0


def report(run: Annotated[Path | None, typer.Argument(help="A run folder; the newest if not given.")] = None) -> int:
    """Write the HTML report of a run again and print its path. Example: fluobook report runs/MY-RUN."""
    from fluobook.journal.folder import newest  # noqa: PLC0415
    from fluobook.redact import Redactor  # noqa: PLC0415
    from fluobook.run.report import write_report  # noqa: PLC0415

    folder = run or newest(root() / "runs")
    if folder is None or not (folder / "summary.json").exists():
        raise NotFound(
            f"no finished run in {folder or root() / 'runs'}", system="fluobook", remedy="fluobook run phase1 makes one"
        )
    print(write_report(folder, Redactor()))  # noqa: T201
    return 0


def tools() -> int:
    """List the programs fluobook calls, where each was found and its version. Example: fluobook tools."""
    from fluobook import lab  # noqa: PLC0415
    from fluobook.clients.tools import inventory  # noqa: PLC0415
    from fluobook.display.table import Table  # noqa: PLC0415

    called = [[tool.name, tool.version, tool.source, str(tool.path)] for tool in inventory()]
    columns = ["program", "version"]
    print(Table("called by fluobook", [*columns, "from", "path"], called))  # noqa: T201
    with suppress(NotFound):  # the lab is not installed
        engines = lab.provider().engine_inventory(root())
        real = [[engine.name, engine.version, engine.purpose, str(engine.path or engine.source)] for engine in engines]
        print()  # noqa: T201
        print(Table("called by the lab's engine `real`", [*columns, "for", "path"], real))  # noqa: T201
    return 0


def version() -> int:
    """Print the version of fluobook and the versions it pins. Example: fluobook version."""
    from importlib.metadata import version as installed  # noqa: PLC0415

    from fluobook.params import pins  # noqa: PLC0415

    print(f"fluobook {installed('fluobook')}")  # noqa: T201
    for name, pinned in pins(root()).items():
        print(f"{name:<11} {pinned}")  # noqa: T201
    return 0


def versions(phase: Phase = "phase1", target: Target = "lab", settings: Settings = []) -> int:  # noqa: B006
    """Compare each chart's version with the newest stable one. Example: fluobook versions phase1 --target live."""
    from fluobook import gitops  # noqa: PLC0415
    from fluobook.clients import helm  # noqa: PLC0415
    from fluobook.display.tree import versions_table  # noqa: PLC0415
    from fluobook.gitops.charts import newer  # noqa: PLC0415

    platform = _platform_with_mirrors(chosen(phase, settings), target)
    tree = gitops.for_phase(platform, gitops.read(root(), platform.gitops.path))
    charts = newer(tree, lambda repo, chart: helm.versions(repo, chart, ca_file=platform.ca_file(repo)))
    print(versions_table(charts).text())  # noqa: T201
    failed = [chart for chart in charts if chart.problem]
    for chart in failed:
        print(f"{chart.chart}: {chart.problem}", file=sys.stderr)  # noqa: T201
    return 1 if failed else 0


def _platform_with_mirrors(params: Params, target: str) -> Platform:
    """The platform with the chart sources of the target: those of a rehearsal are the lab's."""
    from fluobook import lab  # noqa: PLC0415
    from fluobook.params import overlay  # noqa: PLC0415

    if target == "live":
        return params.platform
    return overlay(params.platform, lab.for_phase(params, root=root()).overlay)
