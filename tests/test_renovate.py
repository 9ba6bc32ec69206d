"""renovate.json: every version that is pinned is updated by exactly one rule."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fluobook import gitops, params
from fluobook.clients import git
from fluobook.gitops.versions import pins_of
from fluobook.params import repository_root

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = repository_root(Path(__file__))
CONFIG: dict[str, Any] = json.loads((ROOT / "renovate.json").read_text())
FILES = [path.relative_to(ROOT).as_posix() for path in git.tracked(ROOT)]
Found = tuple[str, str, str]


def matching(patterns: list[str]) -> Iterator[str]:
    """The files of the repository that a manager reads; its patterns stand between slashes."""
    for file in FILES:
        if any(re.search(pattern.removeprefix("/").removesuffix("/"), file) for pattern in patterns):
            yield file


def found() -> Iterator[Found]:
    """What the managers find: manager, file and version."""
    for index, manager in enumerate(CONFIG["customManagers"]):
        for file in matching(manager["managerFilePatterns"]):
            for text in manager["matchStrings"]:
                for match in re.finditer(text.replace("(?<", "(?P<"), (ROOT / file).read_text()):
                    yield f"custom {index}", file, match["currentValue"]
    for file in matching(CONFIG["argocd"]["managerFilePatterns"]):
        for document in yaml.safe_load_all((ROOT / file).read_text()):
            revision = document["spec"]["source"]["targetRevision"]
            if revision != "main":
                yield "argocd", file, revision
    for file in matching(CONFIG["pip_requirements"]["managerFilePatterns"]):
        for version in re.findall(r"^[\w.-]+==(\S+)", (ROOT / file).read_text(), re.MULTILINE):
            yield "pip", file, version


def test_every_version_is_updated_by_exactly_one_rule() -> None:
    times = Counter((file, version) for _, file, version in found())
    platform = params.load(ROOT / "params" / "phase3.yaml").platform
    pinned = pins_of(platform, gitops.read(ROOT), ROOT)
    rules = {(pin.place, pin.version): times[pin.place, pin.version] for pin in pinned if pin.kind != "package"}
    assert {place: count for place, count in rules.items() if count != 1} == {}
    assert len(rules) > 15
    missing = [pin.component for pin in pinned if pin.kind == "package" and not times[pin.place, pin.version]]
    assert missing == []


def test_the_contract_of_clusters_is_left_alone() -> None:
    versions = yaml.safe_load((ROOT / "params" / "versions.yaml").read_text())["pins"]
    updated = [version for _, file, version in found() if file == "params/versions.yaml"]
    assert sorted(updated) == sorted([versions["talos"], versions["kubernetes"]])


def test_every_module_of_programs_is_read() -> None:
    modules = {file for file in FILES if file.endswith("go.mod")}
    assert set(matching(CONFIG["gomod"]["managerFilePatterns"])) == modules
    assert modules


def test_only_managers_that_are_configured_are_enabled() -> None:
    named = {
        "custom.regex",
        "github-actions",
        *(name for name in ("argocd", "pip_requirements", "gomod") if name in CONFIG),
    }
    assert set(CONFIG["enabledManagers"]) == named
