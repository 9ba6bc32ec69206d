"""The stand-ins against the table of what the real charts render (charts/real.yaml), recorded by tools/chart_facts.py.

What a stand-in renders must be as in the real chart, in all that policies, Services, monitors, hooks and webhooks
depend on. What it leaves out, and what differs on purpose, stands in charts/accepted.yaml.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.lab
HERE = Path(__file__).parent / "charts"
TOOL = Path(__file__).parents[2] / "tools" / "chart_facts.py"


@pytest.fixture(scope="module")
def standins() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("chart_facts", TOOL)
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    rendered: dict[str, Any] = tool.render(None)
    return rendered


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load((HERE / "real.yaml").read_text())
    return table


@pytest.fixture(scope="module")
def accepted() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load((HERE / "accepted.yaml").read_text())
    return table


def test_the_table_is_of_the_versions_that_the_tree_pins(standins: dict[str, Any], real: dict[str, Any]) -> None:
    recorded = {name: entry["version"] for name, entry in real.items()}
    assert recorded == {name: entry["version"] for name, entry in standins.items()}, (
        "record it with tools/chart_facts.py"
    )


def test_a_stand_in_differs_from_its_chart_only_where_it_is_accepted(
    standins: dict[str, Any], real: dict[str, Any], accepted: dict[str, Any]
) -> None:
    found: dict[str, Any] = {}
    for name, entry in standins.items():
        ours, theirs = entry["objects"], real[name]["objects"]
        differing = {}
        for obj in ours.keys() & theirs.keys():
            held = ours[obj].keys() | theirs[obj].keys()
            if wrong := sorted(path for path in held if ours[obj].get(path) != theirs[obj].get(path)):
                differing[obj] = wrong
        parts = {"left out": sorted(theirs.keys() - ours.keys()), "only here": sorted(ours.keys() - theirs.keys())}
        parts |= {"differs": differing}
        if parts := {part: value for part, value in parts.items() if value}:
            found[name] = parts
    assert found == accepted
