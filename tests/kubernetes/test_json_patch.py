"""JSON patches, strict as our tree needs them and lenient as the API server applies them."""

from __future__ import annotations

import pytest
from fluobook_lab.kube.patches import apply_leniently

from fluobook.kubernetes import json_patch
from fluobook.kubernetes.json_patch import MISSING, PatchError

DATA = {"spec": {"replicas": 1, "a/b": {"x": None}}, "items": ["one", "two"]}


def test_operations_apply_in_order_and_leave_the_data_unchanged():
    operations = [
        {"op": "replace", "path": "/spec/replicas", "value": 2},
        {"op": "add", "path": "/items/-", "value": "three"},
        {"op": "remove", "path": "/items/0"},
    ]
    assert json_patch.apply({**DATA}, operations) == {**DATA, "spec": {**DATA["spec"], "replicas": 2}} | {
        "items": ["two", "three"]
    }
    assert DATA["items"] == ["one", "two"]


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/spec/missing", "value": 1},
        {"op": "test", "path": "/spec/missing", "value": None},
        {"op": "remove", "path": "/spec/missing"},
        {"op": "test", "path": "/spec/replicas", "value": 7},
    ],
)
def test_an_operation_that_does_not_match_is_refused(operation):
    with pytest.raises(PatchError):
        json_patch.apply(DATA, [operation])


def test_a_lenient_patch_replaces_and_tests_members_that_are_missing():
    test, replace = {"op": "test", "path": "/spec/x", "value": None}, {"op": "replace", "path": "/spec/x", "value": 1}
    assert apply_leniently(DATA, [test, replace])["spec"]["x"] == 1


@pytest.mark.parametrize("operation", [{"op": "remove", "path": "/spec/missing"}, {"op": "fly", "path": "/spec"}, {}])
def test_a_lenient_patch_still_refuses_the_rest(operation):
    with pytest.raises(PatchError):
        apply_leniently(DATA, [operation])


@pytest.mark.parametrize(
    ("pointer", "value"),
    [("/spec/replicas", 1), ("/spec/a~1b/x", None), ("/items/1", "two"), ("/items/2", MISSING), ("/spec/y/z", MISSING)],
)
def test_the_value_at_a_pointer(pointer, value):
    assert json_patch.value_at(DATA, pointer) is value or json_patch.value_at(DATA, pointer) == value
