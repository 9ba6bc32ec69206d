"""From a phase's name, a file or plain data to a validated platform."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fluobook.errors import ParamsError
from fluobook.params.derive import complete
from fluobook.params.overlay import merged, with_overrides
from fluobook.params.platform import Params, Platform
from fluobook.params.problems import Problem, did_you_mean, problems_of
from fluobook.params.reading import read
from fluobook.params.rules import broken_rules, phase_contradictions
from fluobook.params.versions import load_supported

_NOT_PHASES = {"versions"}


def repository_root(start: Path | None = None) -> Path:
    """The repository: the nearest folder, from `start` upwards, that holds `params/` and `notebooks/`.

    Args:
        start: a file or folder inside the repository; the current folder unless given.

    Raises:
        ParamsError: neither `start` nor this package's own checkout is such a repository.
    """
    here = (start or Path.cwd()).absolute()
    checkout = Path(__file__).parents[2]
    for folder in (here, *here.parents, checkout):
        if (folder / "params").is_dir() and ((folder / "notebooks").is_dir() or folder == checkout):
            return folder
    raise ParamsError(
        f"{here} is not inside a fluobook repository",
        cause="no folder above it holds params/ and notebooks/",
        remedy="cd into the repository",
    )


def phases(root: Path) -> tuple[str, ...]:
    """The names of the params files of a repository, sorted."""
    return tuple(sorted(path.stem for path in (root / "params").glob("*.yaml") if path.stem not in _NOT_PHASES))


def load(phase_or_path: str | Path, overrides: Iterable[str] = ()) -> Params:
    """The parameters of a phase.

    Args:
        phase_or_path: a name in `params/` ("phase1"), or the path of such a file.
        overrides: "path=value" each, laid over the file in turn (`--set`).

    Raises:
        ParamsError: with every problem, one sentence each.
    """
    path = _path_of(phase_or_path)
    document = read(path)
    if isinstance(document, Mapping) and isinstance(document.get("platform"), Mapping):
        document = {**document, "platform": with_overrides(document["platform"], tuple(overrides))}
    params = parse(document, origin=str(path), root=repository_root(path))
    if path.stem.startswith("phase") and path.stem != params.phase:
        problem = Problem("phase", params.phase, f"contradicts the name of its file, {path.name}", "rename one of them")
        raise ParamsError(f"{path} is wrong", problems=(str(problem),))
    return params


def parse(document: Any, *, origin: str = "the parameters", root: Path | None = None) -> Params:
    """The parameters in plain data that has the keys `phase` and `platform`.

    Args:
        document: the content of a params file.
        origin: what the data is called in an error.
        root: the repository, for its `params/versions.yaml`; found from the current folder unless given.

    Raises:
        ParamsError: with every problem, one sentence each.
    """
    if not isinstance(document, Mapping):
        raise ParamsError(f"{origin}: a mapping with the keys phase and platform is wanted")
    supported = load_supported(root or repository_root())
    written = document.get("platform")
    completed = (
        {**document, "platform": complete(written, supported.pins)} if isinstance(written, Mapping) else document
    )
    try:
        params = Params.model_validate(completed)
    except ValidationError as error:
        raise _wrong(origin, problems_of(error, Params, completed)) from None
    problems = (*broken_rules(params.platform, supported.matrix), *phase_contradictions(params))
    if problems:
        raise _wrong(origin, problems)
    params.platform._written.update(written if isinstance(written, Mapping) else {})  # noqa: SLF001 (its own loader)
    return params


def overlay(platform: Platform, mapping: Mapping[str, Any]) -> Platform:
    """The platform with `mapping` laid over it; lists of named things merge by name, derived values follow.

    Raises:
        ParamsError: the result is not a valid platform.
    """
    written = platform._written or platform.model_dump(mode="json")  # noqa: SLF001 (its own loader)
    supported = load_supported(repository_root())
    ours = merged(written, mapping)
    completed = {"phase": "phase1", "platform": complete(ours, supported.pins)}
    try:
        result = Params.model_validate(completed).platform
    except ValidationError as error:
        raise _wrong("the overlay", problems_of(error, Params, completed)) from None
    if problems := tuple(broken_rules(result, supported.matrix)):
        raise _wrong("the overlay", problems)
    result._written.update(ours)  # noqa: SLF001 (its own loader)
    return result


def _wrong(origin: str, problems: Iterable[Problem]) -> ParamsError:
    told = tuple(dict.fromkeys(map(str, problems)))
    count = "one problem" if len(told) == 1 else f"{len(told)} problems"
    return ParamsError(f"{origin}: {count}", problems=told, remedy="correct the file, then run the command again")


def _path_of(phase_or_path: str | Path) -> Path:
    path = Path(phase_or_path)
    if isinstance(phase_or_path, Path) or path.suffix in {".yaml", ".yml"} or path.name != str(phase_or_path):
        return path.expanduser().absolute()
    root = repository_root()
    if phase_or_path not in phases(root):
        raise ParamsError(
            f"there is no params/{phase_or_path}.yaml in {root}", remedy=did_you_mean(str(phase_or_path), phases(root))
        )
    return root / "params" / f"{phase_or_path}.yaml"
