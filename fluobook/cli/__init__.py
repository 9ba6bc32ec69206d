"""The command line, `fluobook`: every command and the exit code of the process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer

from fluobook.cli import by_hand, charts, commands, lab, rehearse
from fluobook.cli.options import PassThrough, WrongUsage
from fluobook.errors import FluobookError, UsageError, in_commands

NO_FILE = "/dev/null/no-kubeconfig"
"""The path that a failed `fluobook kubeconfig` prints: `kubectl --kubeconfig ""` would act on another cluster."""

app = typer.Typer(
    name="fluobook",
    help="Runbooks that bring up and operate the FluoData platform: Proxmox VE, Talos, Kubernetes, Cilium, Argo CD.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("open")(by_hand.open_run)
for command in commands.COMMANDS:
    app.command(cls=PassThrough if command in (commands.kubectl, commands.talosctl) else None)(command)
app.command()(rehearse.rehearse)
app.command()(lab.drill)
app.add_typer(charts.app, name="charts")
app.add_typer(lab.app, name="lab")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code (the table is in `fluobook.errors`)."""
    if arguments is None and sys.getfilesystemencoding() != "utf-8":  # a locale such as de_DE.ISO-8859-1
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606 (no shell is wanted)
    signal.signal(signal.SIGTERM, _end)  # a run has a handler of its own once it begins
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # jsonschema builds 38 grammars with it, in 1.2 s
    code = run(arguments)
    if code and "kubeconfig" in arguments[:1]:
        print(NO_FILE)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are written to standard error."""
    given: dict[str, str] = {}
    try:
        return int(app(list(arguments), prog_name="fluobook", standalone_mode=False, obj=given) or 0)
    except FluobookError as error:
        return _report(error, in_commands(given["phase"], given.get("target", "lab")) if "phase" in given else "")
    except WrongUsage as error:
        usage = f"{error.ctx.get_usage()}\n" if error.ctx else ""
        message = error.format_message().replace("Value error, ", "").replace("Input should be", "it must be")
        return _fail(f"{usage}{message}", UsageError.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except typer.Exit as ended:
        return ended.exit_code
    except OSError as error:  # a path; typer has handled a closed pipe, as in `| head`
        message = f"{error.filename or 'the system'}: {error.strerror or error}"
        places = "make it readable and writable, or use another path (--out, FLUOBOOK_HOME, FLUOBOOK_CACHE, TMPDIR)"
        return _report(FluobookError(message, remedy=f"{places}; `fluobook doctor` checks them"))


def _end(number: int, _frame: FrameType | None) -> None:
    """Say so, and end as without a handler: work in other threads is not waited for."""
    os.write(sys.stderr.fileno(), b"ended by SIGTERM\n")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _report(error: FluobookError, phase: str = "") -> int:
    from fluobook.failures import present

    text = present(error, phase=phase, with_probe=True).text()
    return _fail(f"{type(error).__name__}: {text}", error.exit_code)


def _fail(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code
