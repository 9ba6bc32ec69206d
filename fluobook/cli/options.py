"""Arguments and options that several commands share, and how they become params."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fluobook.params import Params

Phase = Annotated[
    str, typer.Argument(metavar="PHASE", help="A name in params/ (phase1, phase2, phase3) or a path to such a file.")
]
Target = Annotated[str, typer.Option(help="lab rehearses on this machine; live acts on the endpoints in the params.")]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one parameter, such as nodes.talos-worker-1.memory_gib=16."
    ),
]

Engine = Annotated[
    str, typer.Option(help="What plays Kubernetes and Argo CD in the lab: embedded, or real (the programs themselves).")
]


def root() -> Path:
    """The repository this command is called in."""
    from fluobook.params import repository_root  # noqa: PLC0415

    return repository_root(Path.cwd())


def chosen(phase: str, settings: list[str]) -> Params:
    """The params of a phase with the settings of the command line."""
    from fluobook import params  # noqa: PLC0415

    return params.load(phase, overrides=settings, root=root())


def engines(engine: str) -> dict[str, str]:
    """The real engine's programs by name; none for the embedded one.

    Raises:
        UsageError: there is no such engine.
        ToolFailed: programs are missing.
    """
    from fluobook.clients.engines import programs  # noqa: PLC0415
    from fluobook.errors import UsageError  # noqa: PLC0415

    if engine not in ("embedded", "real"):
        raise UsageError(f"there is no engine {engine!r}", remedy="engines are embedded and real")
    return programs(root()) if engine == "real" else {}


def as_platform(phase: str, settings: list[str], loaded: Params) -> dict[str, Any]:
    """The platform to hand to the notebooks: empty when they can read the phase's own file."""
    by_name = (root() / "params" / f"{phase}.yaml").exists() and not settings
    return {} if by_name else dict(loaded.platform.written)
