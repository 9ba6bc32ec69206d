"""The command line: `fluobook run|plan|render|check|versions|doctor|explain|lab|kubeconfig|report|tools|version`.

Commands import what they need when they run, so that help and shell completion stay quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer

from fluobook.cli import lab, look, versions, work
from fluobook.errors import FluobookError, UsageError

WrongUsage: Any = typer.BadParameter.__bases__[0]
"""What typer raises for a wrong command line; newer ones bring a click of their own, so click's name would miss it."""

app = typer.Typer(
    name="fluobook",
    help="Runbooks that bring up and operate the FluoData platform: Proxmox VE, Talos, Kubernetes, Cilium, Argo CD.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
work.add_to(app)
look.add_to(app)
versions.add_to(app)
app.add_typer(lab.app, name="lab")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code (the table is in `fluobook.errors`)."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are told on standard error."""
    try:
        return int(app(list(arguments), prog_name="fluobook", standalone_mode=False) or 0)
    except FluobookError as error:
        from fluobook.failures import present  # noqa: PLC0415

        return _report(f"{type(error).__name__}: {present(error).text()}", error.exit_code)
    except WrongUsage as error:
        usage = f"{error.ctx.get_usage()}\n" if error.ctx else ""
        return _report(f"{usage}{error.format_message()}", UsageError.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _report("interrupted", 130)
    except typer.Exit as ended:
        return ended.exit_code
    except OSError as error:
        return _of_this_machine(error)


def _of_this_machine(error: OSError) -> int:
    """A place that cannot be read or written. That nobody reads our words any more (`| head`), typer has answered."""
    told = FluobookError(
        f"{error.filename or 'the system'}: {error.strerror or error}",
        remedy="make it readable and writable, or name another place (--out, FLUOBOOK_HOME, FLUOBOOK_CACHE, TMPDIR); "
        "`fluobook doctor` looks at all of them",
    )
    return _report(told.diagnostics(), told.exit_code)


def _report(text: str, code: int) -> int:
    print(text, file=sys.stderr)  # noqa: T201 (the command line's own voice)
    return code
