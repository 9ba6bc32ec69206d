"""The command line: `fluobook run|plan|render|check|versions|doctor|explain|lab|kubeconfig|report|tools|version`.

Commands import what they need when they run, so that help and shell completion stay quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer

from fluobook.cli import inspection, lab, platform
from fluobook.errors import FluobookError, UsageError

WrongUsage: Any = typer.BadParameter.__bases__[0]
"""What typer raises for a wrong command line. Newer versions contain their own click, so it is not click's class."""

app = typer.Typer(
    name="fluobook",
    help="Runbooks that bring up and operate the FluoData platform: Proxmox VE, Talos, Kubernetes, Cilium, Argo CD.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
platform.add_to(app)
inspection.add_to(app)
app.add_typer(lab.app, name="lab")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code (the table is in `fluobook.errors`)."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are written to standard error."""
    try:
        return int(app(list(arguments), prog_name="fluobook", standalone_mode=False) or 0)
    except FluobookError as error:
        from fluobook.failures import present  # noqa: PLC0415

        return _report(f"{type(error).__name__}: {present(error, with_probe=True).text()}", error.exit_code)
    except WrongUsage as error:
        usage = f"{error.ctx.get_usage()}\n" if error.ctx else ""
        return _report(f"{usage}{error.format_message()}", UsageError.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _report("interrupted", 130)
    except typer.Exit as ended:
        return ended.exit_code
    except OSError as error:
        return _report_os_error(error)


def _report_os_error(error: OSError) -> int:
    """Report a path that cannot be read or written; typer has handled a closed pipe, as in `| head`."""
    explained = FluobookError(
        f"{error.filename or 'the system'}: {error.strerror or error}",
        remedy="make it readable and writable, or use another path (--out, FLUOBOOK_HOME, FLUOBOOK_CACHE, TMPDIR); "
        "`fluobook doctor` checks them",
    )
    return _report(explained.diagnostics(), explained.exit_code)


def _report(text: str, code: int) -> int:
    print(text, file=sys.stderr)  # noqa: T201 (the output of the command line)
    return code
