"""What the charts and operators of the tree bring and need: facts about others' work, kept as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from fluobook.gitops.application import Application
    from fluobook.gitops.documents import Key

PRIVILEGED_KINDS = {"ScyllaCluster": "ScyllaDB's container asks for SYS_NICE"}
"""Custom resources whose pods need a privileged namespace, and why."""


@dataclass(frozen=True)
class Setting:
    """A value that a chart must be given: `at` is its path, `why` what goes wrong otherwise.

    It must be one of `one_of`; hold none of `without`; hold the text `contains`; with none of these, be there.
    """

    at: tuple[Key, ...]
    why: str
    one_of: tuple[Any, ...] = ()
    without: tuple[str, ...] = ()
    contains: str = ""

    def holds(self, value: Any) -> bool:
        """Whether a value is as it must be; None stands for no value."""
        if self.one_of:
            return any(value == one and type(value) is type(one) for one in self.one_of)
        if self.without:
            return isinstance(value, list) and not set(self.without) & set(value)
        return self.contains in str(value) if self.contains else value not in (None, "")

    def wanted(self) -> str:
        """What it must be, for a person."""
        if self.one_of:
            return " or ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in self.one_of)
        if self.without:
            return f"a list without {' and '.join(self.without)}"
        return f"a text with {self.contains}" if self.contains else "set"


@dataclass(frozen=True)
class Chart:
    """One chart, or one operator's repository; see data/charts.yaml for what each field means."""

    brings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    needs_with: dict[str, str] = field(default_factory=dict, hash=False)
    classes: tuple[str, ...] = ()
    privileged: str = ""
    keeps: bool = False
    retired: bool = False
    large: bool = False
    exposes: tuple[str, ...] = ()
    home: str = ""
    serves: dict[str, list[int]] = field(default_factory=dict, hash=False)
    makes: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()


@cache
def _charts() -> dict[str, Chart]:
    text = files("fluobook.gitops").joinpath("data", "charts.yaml").read_text()
    return {name: _chart(known) for name, known in yaml.safe_load(text).items()}


def _chart(known: dict[str, Any]) -> Chart:
    settings = tuple(Setting(**_plain(setting)) for setting in known.get("settings") or ())
    return Chart(**{**_plain(known), "settings": settings})


def _plain(known: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}


@cache
def settings_of(kind: str) -> tuple[Setting, ...]:
    """What objects of a kind must be given in this tree, whoever brings the kind."""
    text = files("fluobook.gitops").joinpath("data", "kinds.yaml").read_text()
    return tuple(Setting(**_plain(setting)) for setting in yaml.safe_load(text).get(kind) or ())


def chart_of(application: Application) -> Chart:
    """What is known of what an Application deploys; nothing, where it is not known."""
    return _charts().get(application.chart or application.repo, Chart())


def is_known(application: Application) -> bool:
    """Whether data/charts.yaml knows the chart or repository of an Application."""
    return (application.chart or application.repo) in _charts()
