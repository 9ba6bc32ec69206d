"""LabelSelector objects."""

from __future__ import annotations

from typing import Any

import pytest

from fluobook.kubernetes.selectors import matches

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
