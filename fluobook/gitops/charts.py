"""What the charts and operators of the tree provide and need (data/*.yaml)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from fluobook.files import packaged

if TYPE_CHECKING:
    from fluobook.gitops.documents import Key
    from fluobook.gitops.tree import Application

CPU_FEATURES = {"ScyllaCluster": ("pclmulqdq", "ScyllaDB")}
"""The CPU feature that pods of a kind need, by its name in /proc/cpuinfo, and the name of the workload."""
PRIVILEGED_KINDS = {"ScyllaCluster": "ScyllaDB's container asks for SYS_NICE"}
"""Custom resources whose pods need a privileged namespace, and why."""


@dataclass(frozen=True)
class Setting:
    """A value that is required: `at` is its path, `why` what goes wrong otherwise.

    It must be one of `one_of`, or contain the text `contains`; contain none of `without`; with none of these, be set:
    an empty value is none.
    """

    at: tuple[Key, ...]
    why: str
    one_of: tuple[Any, ...] = ()
    without: tuple[str, ...] = ()
    contains: str = ""

    def accepts(self, value: Any) -> bool:
        """Whether a value is as required; None stands for no value."""
        if any(value == accepted and type(value) is type(accepted) for accepted in self.one_of):
            return True
        if self.without:
            return isinstance(value, list) and not set(self.without) & set(value)
        return self.contains in str(value) if self.contains else not self.one_of and value not in (None, "", [], {})

    def expected(self) -> str:
        """What it must be, for a person."""
        if self.contains:
            return f"a value that contains {self.contains}"
        if self.one_of:
            return " or ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in self.one_of)
        return f"a list without {' and '.join(self.without)}" if self.without else "set"


@dataclass(frozen=True)
class Chart:
    """One chart, or one operator's repository; see data/charts.yaml for the meaning of each field."""

    brings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    needs_with: dict[str, str] = field(default_factory=dict, hash=False)
    classes: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    privileged: str = ""
    keeps: bool = False
    retired: bool = False
    large: bool = False
    exposes: tuple[str, ...] = ()
    home: str = ""
    extensions: tuple[str, ...] = ()
    apps: dict[str, str] = field(default_factory=dict, hash=False)
    serves: dict[str, list[int]] = field(default_factory=dict, hash=False)
    makes: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()


def _data(name: str) -> dict[str, Any]:
    data: dict[str, Any] = packaged("fluobook.gitops", f"data/{name}")
    return data


@cache
def _chart(name: str) -> Chart:
    data = _data("charts.yaml").get(name, {})
    return Chart(**{**_with_tuples(data), "settings": _settings(data.get("settings"))})


def _settings(entries: list[dict[str, Any]] | None) -> tuple[Setting, ...]:
    return tuple(Setting(**_with_tuples(entry)) for entry in entries or ())


def _with_tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def chart_of(application: Application) -> Chart:
    """What is known about what an Application deploys; an empty `Chart` where nothing is known."""
    return _chart(application.chart or application.repo)


def pods_of(application: Application) -> dict[str, dict[str, Any]]:
    """The pods with ports that an Application's chart or operator brings, by name; see data/pods.yaml."""
    return _data("pods.yaml").get(application.chart or application.repo, {})


@cache
def pod_names() -> frozenset[str]:
    """The names of all pods that charts bring, deployed or not."""
    return frozenset(name for pods in _data("pods.yaml").values() for name in pods)


def image_source(name: str) -> str:
    """The git repository whose tags are the versions of an image; "" if it is unknown."""
    return str(_data("images.yaml").get(name, ""))


@cache
def settings_of(kind: str) -> tuple[Setting, ...]:
    """The settings that objects of a kind need in this tree, whoever provides the kind."""
    return _settings(_data("kinds.yaml").get(kind))
