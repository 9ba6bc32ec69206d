"""Commands that only read: check, doctor, explain, kubeconfig, report, tools, version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluobook.cli.options import Phase, Settings, Target, chosen, root
from fluobook.errors import CheckFailed, NotFound, ParamsError, StageMissing

if TYPE_CHECKING:
    from collections.abc import Iterator


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (check, doctor, explain, kubeconfig, report, tools, version):
        app.command()(command)


def check() -> int:
    """Check the repository alone: params, the GitOps tree, secrets. Example: fluobook check."""
    from fluobook.gitops.check import all_findings  # noqa: PLC0415

    told = [*_wrong_params(root()), *(finding.line_of_text() for finding in all_findings(root()))]
    for line in told:
        print(line)  # noqa: T201
    print(f"{len(told)} findings")  # noqa: T201
    return CheckFailed.exit_code if told else 0


def _wrong_params(repository: Path) -> Iterator[str]:
    """What is wrong with the params of every phase, a line each."""
    from fluobook import params  # noqa: PLC0415

    for phase in params.phases(repository):
        try:
            params.load(phase, root=repository)
        except ParamsError as error:
            for problem in error.problems or (error.message,):
                yield f"params/{phase}.yaml: [params] {problem}"


def doctor() -> int:
    """Look at the surroundings: Python, tools, folders, labs. Example: fluobook doctor."""
    from fluobook.cli.doctor import examine  # noqa: PLC0415

    looks = examine(root())
    for look in looks:
        print(look.text())  # noqa: T201
    return 0 if all(look.ok for look in looks) else CheckFailed.exit_code


def explain(code: Annotated[str, typer.Argument(help="A code such as F28, as errors show it.")]) -> int:
    """Explain a known failure: causes, remedy, next command. Example: fluobook explain F28."""
    from fluobook.failures import entry  # noqa: PLC0415

    print(entry(code).text())  # noqa: T201
    return 0


def kubeconfig(phase: Phase, target: Target = "lab", settings: Settings = []) -> int:  # noqa: B006
    """Print the path of the kubeconfig. Example: kubectl --kubeconfig $(fluobook kubeconfig phase1) get nodes."""
    from fluobook import lab as labs  # noqa: PLC0415
    from fluobook import params  # noqa: PLC0415

    wanted = chosen(phase, settings)
    if target == "lab":
        folder = labs.provider().folder_of(wanted.phase) / "cluster"
    else:
        folder = params.home() / wanted.platform.cluster.name
    path = folder / "kubeconfig"
    if not path.exists():
        raise StageMissing(
            f"there is no kubeconfig of {wanted.phase} yet",
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
    from fluobook.clients import engines  # noqa: PLC0415
    from fluobook.clients.tools import inventory  # noqa: PLC0415
    from fluobook.display.table import Table  # noqa: PLC0415

    called = [[tool.name, tool.version, tool.source, str(tool.path)] for tool in inventory()]
    real = [[one.name, one.version, one.purpose, str(one.path or one.source)] for one in engines.find(root())]
    columns = ["program", "version"]
    print(Table("what fluobook calls", [*columns, "from", "path"], called))  # noqa: T201
    print()  # noqa: T201
    print(Table("for the lab's engine `real`", [*columns, "for", "path"], real))  # noqa: T201
    return 0


def version() -> int:
    """Print the versions of fluobook and of what it pins. Example: fluobook version."""
    from importlib.metadata import version as installed  # noqa: PLC0415

    from fluobook.params import pins  # noqa: PLC0415

    print(f"fluobook {installed('fluobook')}")  # noqa: T201
    for name, pinned in pins(root()).items():
        print(f"{name:<11} {pinned}")  # noqa: T201
    return 0
