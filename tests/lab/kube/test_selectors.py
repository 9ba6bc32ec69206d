"""Selectors as people write them."""

from __future__ import annotations

import pytest
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.selectors import field_selector, label_selector

LABELS = {"app": "web", "tier": "front"}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app!=web", False),
        ("other!=x", True),
        ("app in (web, db)", True),
        ("app notin (web,db)", False),
        ("other notin (web)", True),
        ("app", True),
        ("!app", False),
        ("!other,app in (web)", True),
    ],
)
def test_label_selectors(text: str, fits: bool) -> None:
    assert label_selector(text)({"metadata": {"labels": LABELS}}) is fits


@pytest.mark.parametrize("text", ["app in web", "a=b=c", "(x)"])
def test_a_selector_that_is_none(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        label_selector(text)
    assert refused.value.code == 400


@pytest.mark.parametrize(
    ("text", "fits"),
    [("metadata.name=a", True), ("metadata.name!=a", False), ("spec.nodeName=", True), ("spec.paused=true", True)],
)
def test_field_selectors(text: str, fits: bool) -> None:
    assert field_selector(text)({"metadata": {"name": "a"}, "spec": {"paused": True}}) is fits
