"""Where things are: the repository with its params, and the operator's own state."""

from __future__ import annotations

import os
from pathlib import Path

from fluobook.errors import ParamsError
from fluobook.params.problems import did_you_mean

PHASES = ("phase1", "phase2", "phase3")
"""The phases that a platform goes through."""

_NOT_PHASES = {"versions"}


def repository_root(start: Path | None = None) -> Path:
    """The repository: the nearest folder, from `start` upwards, that holds `params/versions.yaml`.

    Args:
        start: a file or folder inside the repository; the current folder unless given.

    Raises:
        ParamsError: neither `start` nor this package's own checkout is such a repository.
    """
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents, Path(__file__).parents[2]):
        if (folder / "params" / "versions.yaml").is_file():
            return folder
    raise ParamsError(
        f"{here} is not inside a fluobook repository",
        cause="no folder above it holds params/versions.yaml",
        remedy="cd into the repository",
    )


def home() -> Path:
    """Where kubeconfigs, talosconfigs and labs are kept: $FLUOBOOK_HOME, or ~/.local/state/fluobook."""
    told = os.environ.get("FLUOBOOK_HOME")
    return Path(told).expanduser().absolute() if told else Path.home() / ".local" / "state" / "fluobook"


def phases(root: Path) -> tuple[str, ...]:
    """The names of the params files of a repository, sorted."""
    return tuple(sorted(path.stem for path in (root / "params").glob("*.yaml") if path.stem not in _NOT_PHASES))


def params_file(phase_or_path: str | Path, root: Path | None = None) -> Path:
    """The params file of that name in the repository, or at that path.

    Args:
        phase_or_path: "phase1", or a path such as "sites/berlin.yaml".
        root: the repository; found from the current folder unless given.

    Raises:
        ParamsError: there is no params file of that name.
    """
    path = Path(phase_or_path)
    if isinstance(phase_or_path, Path) or path.suffix in {".yaml", ".yml"} or path.name != phase_or_path:
        return path.expanduser().absolute()
    root = root or repository_root()
    if phase_or_path not in phases(root):
        missing = f"there is no params/{phase_or_path}.yaml in {root}"
        raise ParamsError(missing, remedy=did_you_mean(phase_or_path, phases(root)))
    return root / "params" / f"{phase_or_path}.yaml"
