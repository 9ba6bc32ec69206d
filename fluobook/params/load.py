"""From a phase's name, a file or plain data to a validated platform; where repository and state folder are."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fluobook.errors import BadFile, ParamsError
from fluobook.files import parse_json, read_text
from fluobook.params.derive import complete
from fluobook.params.platform import Params, Platform
from fluobook.params.problems import Problem, did_you_mean, problems_of
from fluobook.params.reading import merged, read, with_overrides
from fluobook.params.rules import broken_rules
from fluobook.params.versions import Supported, load_supported

FOLDERS = ("params", "site/params")
"""Where params files are found by their names: those that come with fluobook, and the operator's own."""
EXAMPLES = ("phase1", "phase2", "phase3")
"""The phases that come with fluobook; a file that has one's name describes that phase."""


def load(phase_or_path: str | Path, overrides: Iterable[str] = (), *, root: Path | None = None) -> Params:
    """The parameters of a phase.

    Args:
        phase_or_path: a name in `params/` or `site/params/` ("phase1"), or the path of such a file.
        overrides: "path=value" each, applied in this order (`--set`).
        root: the repository; found from the file upwards unless given.

    Raises:
        ParamsError: every problem, one sentence each.
    """
    path = params_file(phase_or_path, root)
    document, overrides, root = read(path), tuple(overrides), root or repository_root(path)
    try:
        params = parse(_changed(document, overrides), origin=str(path), root=root)
    except ParamsError as error:
        if not overrides or _mistakes(document, (), root):
            raise
        wrong = [
            override
            for index, override in enumerate(overrides)
            if _mistakes(document, overrides[:index] + overrides[index + 1 :], root) < len(error.problems)
        ]
        options = " ".join(f"--set {override.partition('=')[0]}" for override in wrong or overrides)
        remedy = "correct --set, then run the command again"
        raise ParamsError(f"{options}: {error.message}", problems=error.problems, remedy=remedy) from None
    if path.stem in EXAMPLES and path.stem != params.phase:
        problem = Problem("phase", params.phase, f"contradicts the name of its file, {path.name}", "rename one of them")
        raise _invalid(str(path), [problem])
    return params


def parse(document: Any, *, origin: str = "the parameters", root: Path | None = None) -> Params:
    """The parameters in plain data that has the keys `phase` and `platform`.

    Args:
        document: the content of a params file.
        origin: the name of the data in an error.
        root: the repository, for its `params/versions.yaml`; found from the current folder unless given.

    Raises:
        ParamsError: every problem, one sentence each.
    """
    if not isinstance(document, Mapping):
        raise ParamsError(f"{origin}: a mapping with the keys phase and platform is required")
    return _validated(document, load_supported(root or repository_root()), origin)


def _changed(document: Any, overrides: tuple[str, ...]) -> Any:
    if not isinstance(document, Mapping) or not isinstance(document.get("platform"), Mapping):
        return document
    return {**document, "platform": with_overrides(document["platform"], overrides)}


def _mistakes(document: Any, overrides: tuple[str, ...], root: Path) -> int:
    try:
        parse(_changed(document, overrides), root=root)
    except ParamsError as error:
        return len(error.problems) or 1
    return 0


RECORD = "params.json"
"""The file of a run folder with the params of the run: all its notebooks use these."""


def recorded(folder: Path, phase: str, *, root: Path | None = None) -> Params | None:
    """The params that a headless run has read once, for its notebooks; None if it has recorded none for the phase.

    Raises:
        BadFile: the record is damaged.
        ParamsError: it is invalid.
    """
    path = folder / RECORD
    document = parse_json(read_text(path), path) if path.exists() else {}
    if not isinstance(document, dict):
        raise BadFile(path, "is not the params of a run", remedy="restore it, or start a new run")
    return parse(document, root=root) if document.get("phase") == phase else None


def digest_of(platform: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits over a platform as it is written."""
    return hashlib.sha256(json.dumps(platform, sort_keys=True, default=str).encode()).hexdigest()[:12]


def overlay(platform: Platform, mapping: Mapping[str, Any]) -> Platform:
    """The platform with `mapping` merged into it; lists of named items merge by name, derived values follow.

    Args:
        platform: what `load`, `parse` or `overlay` returned.
        mapping: part of a platform, in the shape of a params file.

    Raises:
        ParamsError: the result is not a valid platform.
    """
    document = {"phase": EXAMPLES[0], "platform": merged(platform.written, mapping)}
    return _validated(document, platform.supported, "the overlay").platform


def _validated(document: Mapping[str, Any], supported: Supported, origin: str) -> Params:
    written = document.get("platform")
    platform = complete(written, supported.pins) if isinstance(written, Mapping) else written
    completed = {**document, "platform": platform} if "platform" in document else document
    try:
        params = Params.model_validate(completed)
    except ValidationError as error:
        raise _invalid(origin, problems_of(error, Params, completed)) from None
    if problems := tuple(broken_rules(params.platform, supported.matrix)):
        raise _invalid(origin, problems)
    params.platform.remember(written or {}, supported)
    return params


def _invalid(origin: str, problems: Iterable[Problem]) -> ParamsError:
    sentences = tuple(dict.fromkeys(map(str, problems)))
    count = "one problem" if len(sentences) == 1 else f"{len(sentences)} problems"
    return ParamsError(f"{origin}: {count}", problems=sentences, remedy="correct the file, then run the command again")


def repository_root(start: Path | None = None) -> Path:
    """The repository: the nearest folder, from `start` upwards, that contains `params/versions.yaml`.

    Args:
        start: a file or folder inside the repository; the current folder unless given.

    Raises:
        ParamsError: neither `start` nor this package's own checkout is such a repository.
    """
    begin = (start or Path.cwd()).absolute()
    for folder in (begin, *begin.parents, Path(__file__).parents[2]):
        if os.path.lexists(folder / "params" / "versions.yaml"):  # reading it says what is wrong with it
            return folder
    raise ParamsError(
        f"{begin} is not inside a fluobook repository",
        cause="no folder above it contains params/versions.yaml",
        remedy="cd into the repository",
    )


def files(root: Path) -> dict[str, Path]:
    """The params files of a repository by their names, sorted: those of `params/`, and the operator's own.

    Raises:
        ParamsError: two files have the same name.
    """
    by_name: dict[str, Path] = {}
    for path in (path for folder in FOLDERS for path in sorted((root / folder).glob("*.yaml"))):
        if path.stem in by_name:
            problem = f"{by_name[path.stem]} and {path} have the same name"
            raise ParamsError("two params files have one name", problems=(problem,), remedy="rename one of them")
        if path != root / "params" / "versions.yaml":
            by_name[path.stem] = path
    return dict(sorted(by_name.items()))


def phases(root: Path) -> tuple[str, ...]:
    """The names of the params files of a repository, sorted."""
    return tuple(files(root))


def params_file(phase_or_path: str | Path, root: Path | None = None) -> Path:
    """The params file of that name in the repository, or at that path.

    Args:
        phase_or_path: a name such as "phase1", or a path such as "site/params/berlin.yaml".
        root: the repository; found from the current folder unless given.

    Raises:
        ParamsError: there is no params file of that name.
    """
    path = Path(phase_or_path)
    if isinstance(phase_or_path, Path) or path.suffix in {".yaml", ".yml"} or path.name != phase_or_path:
        return path.expanduser().absolute()
    root = root or repository_root()
    if phase_or_path not in phases(root):
        missing = f"there is no {phase_or_path or '(nothing)'}.yaml in {' or '.join(FOLDERS)} of {root}"
        raise ParamsError(missing, remedy=did_you_mean(phase_or_path, phases(root)))
    return files(root)[phase_or_path]
