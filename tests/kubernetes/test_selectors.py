"""LabelSelector objects."""

from __future__ import annotations

from typing import Any

import pytest

from fluobook.kubernetes.selectors import CORDONED, matches, tolerates

LABELS = {"app": "web", "tier": "front"}


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "db"}}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_selector_objects(selector: Any, fits: bool) -> None:
    assert matches(selector, LABELS) is fits


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": CORDONED["key"], "operator": "Exists"}, True),
        ({"key": CORDONED["key"], "effect": "NoSchedule"}, True),
        ({"key": CORDONED["key"], "operator": "Equal", "value": "yes"}, False),
        ({"key": "node.kubernetes.io/not-ready", "operator": "Exists"}, False),
        ({}, False),
    ],
)
def test_tolerations_of_the_cordon(toleration: Any, fits: bool) -> None:
    assert tolerates({"tolerations": [{"key": "other", "operator": "Exists"}, toleration]}, CORDONED) is fits
    assert not tolerates({}, CORDONED)
