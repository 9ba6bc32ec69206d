"""Arguments and options of several commands, and the params that they select."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fluobook.errors import FluobookError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params import Params
    from fluobook.redact import Redactor

Phase = Annotated[
    str, typer.Argument(metavar="PHASE", help="A name in params/ (phase1, phase2, phase3) or a path to such a file.")
]
Target = Annotated[
    Literal["lab", "live"],
    typer.Option(help="lab rehearses on this machine; live acts on the endpoints in the params."),
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


def root() -> Path:
    """The repository that contains the working directory."""
    from fluobook.params import repository_root  # noqa: PLC0415

    return repository_root(Path.cwd())


def chosen(phase: str, settings: list[str]) -> Params:
    """The params of a phase with the `--set` options."""
    from fluobook import params  # noqa: PLC0415

    return params.load(phase, overrides=settings, root=root())


def engines(engine: str | None) -> dict[str, str]:
    """The real engine's programs by name; none for the embedded one.

    Raises:
        ToolFailed: programs are missing.
    """
    from fluobook import lab  # noqa: PLC0415

    return lab.provider().engine_programs(root()) if engine == "real" else {}


def as_platform(phase: str, settings: list[str], loaded: Params) -> dict[str, Any]:
    """The platform to pass to the notebooks: empty if they load the same one by the name of the phase."""
    by_name = phase == loaded.phase and not settings and (root() / "params" / f"{phase}.yaml").exists()
    return {} if by_name else dict(loaded.platform.written)


@contextmanager
def masked(redactor: Redactor) -> Iterator[None]:
    """Mask the secrets that were loaded in every error that leaves the block."""
    try:
        yield
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
