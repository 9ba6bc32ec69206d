"""From a phase's name, a file or plain data to a validated platform."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fluobook.errors import ParamsError
from fluobook.params.derive import complete
from fluobook.params.overlay import merged, with_overrides
from fluobook.params.places import PHASES, params_file, repository_root
from fluobook.params.platform import Params, Platform
from fluobook.params.problems import Problem, problems_of
from fluobook.params.reading import read
from fluobook.params.rules import broken_rules, phase_contradictions
from fluobook.params.versions import Supported, load_supported

if TYPE_CHECKING:
    from pathlib import Path


def load(phase_or_path: str | Path, overrides: Iterable[str] = (), *, root: Path | None = None) -> Params:
    """The parameters of a phase.

    Args:
        phase_or_path: a name in `params/` ("phase1"), or the path of such a file.
        overrides: "path=value" each, laid over the file in turn (`--set`).
        root: the repository; found from the file upwards unless given.

    Raises:
        ParamsError: with every problem, one sentence each.
    """
    path = params_file(phase_or_path, root)
    document = read(path)
    if isinstance(document, Mapping) and isinstance(document.get("platform"), Mapping):
        document = {**document, "platform": with_overrides(document["platform"], tuple(overrides))}
    params = parse(document, origin=str(path), root=root or repository_root(path))
    if path.stem in PHASES and path.stem != params.phase:
        problem = Problem("phase", params.phase, f"contradicts the name of its file, {path.name}", "rename one of them")
        raise _wrong(str(path), [problem])
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
    params = _checked(document, load_supported(root or repository_root()), origin)
    if contradictions := tuple(phase_contradictions(params)):
        raise _wrong(origin, contradictions)
    return params


def overlay(platform: Platform, mapping: Mapping[str, Any]) -> Platform:
    """The platform with `mapping` laid over it; lists of named things merge by name, derived values follow.

    Args:
        platform: what `load`, `parse` or `overlay` returned.
        mapping: part of a platform, in the shape of a params file.

    Raises:
        ParamsError: the result is not a valid platform.
    """
    document = {"phase": PHASES[0], "platform": merged(platform.written, mapping)}
    return _checked(document, platform.supported, "the overlay").platform


def _checked(document: Mapping[str, Any], supported: Supported, origin: str) -> Params:
    written = document.get("platform")
    platform = complete(written, supported.pins) if isinstance(written, Mapping) else written
    completed = {**document, "platform": platform} if "platform" in document else document
    try:
        params = Params.model_validate(completed)
    except ValidationError as error:
        raise _wrong(origin, problems_of(error, Params, completed)) from None
    if problems := tuple(broken_rules(params.platform, supported.matrix)):
        raise _wrong(origin, problems)
    params.platform.remember(written or {}, supported)
    return params


def _wrong(origin: str, problems: Iterable[Problem]) -> ParamsError:
    told = tuple(dict.fromkeys(map(str, problems)))
    count = "one problem" if len(told) == 1 else f"{len(told)} problems"
    return ParamsError(f"{origin}: {count}", problems=told, remedy="correct the file, then run the command again")
