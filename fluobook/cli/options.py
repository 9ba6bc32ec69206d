"""Arguments and options of several commands, and the params that they select."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from fluobook import lab
from fluobook.errors import FluobookError, UsageError
from fluobook.redact import Redactor

if TYPE_CHECKING:
    from fluobook.params import Params

WrongUsage: Any = typer.BadParameter.__bases__[0]
"""What typer raises for a wrong command line. Newer versions contain their own click, so it is not click's class."""

ARGUMENTS = "fluobook.arguments"
"""The key, in a context's `meta`, of the arguments for another program."""


class PassThrough(TyperCommand):
    """A command that runs another program: what comes after the first `--` belongs to that program alone."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override, unused-ignore]
        """Parse what comes before the `--`."""
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[ARGUMENTS] = args[end + 1 :]
        try:
            return super().parse_args(ctx, args[:end])
        except WrongUsage as error:
            if end == len(args):
                error.message += f"; write -- before what is for {ctx.info_name}"
            raise

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override, unused-ignore]
        """The pieces of the usage line."""
        return [*super().collect_usage_pieces(ctx), "-- ARGUMENTS"]


def _remember(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """Keep phase and target for the commands that an error suggests."""
    if context.obj is not None:
        context.obj[parameter.name] = value
    return value


Phase = Annotated[
    str,
    typer.Argument(
        metavar="PHASE",
        help="A name in params/ (phase1, phase2, phase3) or a path to such a file.",
        callback=_remember,
    ),
]
Target = Annotated[
    Literal["lab", "live"],
    typer.Option(help="lab rehearses on this machine; live acts on the endpoints in the params.", callback=_remember),
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one parameter, such as nodes.talos-worker-1.memory_gib=16."
    ),
]
Engine = Annotated[
    Literal["embedded", "real"] | None,
    typer.Option(help="What plays Kubernetes and Argo CD in the lab: embedded (the default), or the real programs."),
]


def output_folder(text: str) -> Path:
    """The folder of an option: it exists, or can be made.

    Raises:
        UsageError: it cannot be written.
    """
    path = Path(text)
    nearest = next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
    return _usable(text, "folder", nearest, os.W_OK | os.X_OK)


def existing_folder(text: str) -> Path:
    """The folder of an argument.

    Raises:
        UsageError: it does not exist, is something else, or cannot be read.
    """
    return _usable(text, "folder", Path(text), os.R_OK | os.X_OK)


def file(text: str) -> Path:
    """The file of an option.

    Raises:
        UsageError: it does not exist, is something else, or cannot be read.
    """
    return _usable(text, "file", Path(text), os.R_OK)


def _usable(text: str, kind: str, place: Path, access: int) -> Path:
    """The path, if what is at `place` (itself, or the nearest folder above it) is of that kind and can be accessed."""
    problem, name = "", str(place) if text else "an empty path"
    if not text or not os.path.lexists(place):
        problem = "does not exist"
    elif not (place.is_dir() if kind == "folder" else place.is_file()):
        problem = f"is not a {kind}"
    elif not os.access(place, access):
        problem = f"cannot be {'written' if access & os.W_OK else 'read'}: permission denied"
    if problem:
        raise UsageError(f"{name} {problem}", remedy=f"name another {kind}, or change its permissions")
    return Path(text)


def _as_path(charts: str) -> str:
    """A folder as an absolute path: kernels and labs have other working directories."""
    return charts if charts in ("", "stand-ins", "upstream") else str(existing_folder(charts).absolute())


Charts = Annotated[
    str,
    typer.Option(
        metavar="stand-ins|upstream|FOLDER",
        help="Charts that the lab serves: its small stand-ins (the default), those that the tree names, or a folder's.",
        callback=_as_path,
    ),
]


def root() -> Path:
    """The repository that contains the working directory."""
    from fluobook.params import repository_root

    return repository_root(Path.cwd())


def chosen(phase: str, settings: list[str]) -> Params:
    """The params of a phase with the `--set` options."""
    from fluobook import params

    return params.load(phase, overrides=settings, root=root())


def engines(engine: str | None) -> dict[str, str]:
    """The real engine's programs by name; none for the embedded one.

    Raises:
        ToolFailed: programs are missing.
    """
    return lab.provider().engine_programs(root()) if engine == "real" else {}


def require_own_lab(phase: str, used: lab.Lab | None, **options: str) -> None:
    """Refuse options that only a lab started by this run can have, if another lab is up or none is used."""
    for name, value in options.items():
        if value and value != getattr(used, name, ""):
            state = (
                f"the lab of {phase} is up, with the {used.engine} engine and charts from {used.charts}" if used else ""
            )
            raise UsageError(
                f"--{name} applies only to a lab that this run starts",
                cause=state or "a live run has no lab",
                remedy=f"fluobook lab down {phase}; then run again, or: fluobook lab up {phase} --{name} {value}"
                if used
                else f"leave --{name} out",
            )


@contextmanager
def masked() -> Iterator[Redactor]:
    """A redactor that masks the secrets it receives in every error that leaves the block."""
    redactor = Redactor()
    try:
        yield redactor
    except FluobookError as error:
        for name, value in vars(error).items():
            redacted = tuple(map(redactor.text, value)) if isinstance(value, tuple) else redactor.data(value)
            setattr(error, name, redacted)
        error.args = (error.message,)
        raise
    except OSError:
        raise  # a path on this machine: it contains no secret, and the command line explains it
    except Exception as error:  # noqa: BLE001 (its frames and message are shown all the same, masked)
        text = redactor.text("".join(traceback.format_exception(error)))
        raise FluobookError(text, remedy="this is a defect of fluobook: please report it") from None
