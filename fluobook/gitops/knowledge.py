"""What the charts and operators of the tree bring and need: facts about others' work, kept as data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from fluobook.gitops.application import Application

PRIVILEGED_KINDS = {"ScyllaCluster": "ScyllaDB's container asks for SYS_NICE"}
"""Custom resources whose pods need a privileged namespace, and why."""


@dataclass(frozen=True)
class Chart:
    """One chart, or one operator's repository; see data/charts.yaml for what each field means."""

    brings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    privileged: str = ""
    keeps: bool = False
    retired: bool = False


@cache
def _charts() -> dict[str, Chart]:
    text = files("fluobook.gitops").joinpath("data", "charts.yaml").read_text()
    return {name: _chart(known) for name, known in yaml.safe_load(text).items()}


def _chart(known: dict[str, Any]) -> Chart:
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    return Chart(**plain)


def chart_of(application: Application) -> Chart:
    """What is known of what an Application deploys; nothing, where it is not known."""
    return _charts().get(application.chart or application.repo, Chart())


def is_known(application: Application) -> bool:
    """Whether data/charts.yaml knows the chart or repository of an Application."""
    return (application.chart or application.repo) in _charts()
