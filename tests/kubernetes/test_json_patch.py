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


LONG = {"a": {"b": 1}, "l": [1], "secret": "hunter22" * 99}


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"op": "replace", "path": "/a/z", "value": 1}, "replace /a/z: can't replace a non-existent object 'z'"),
        ({"op": "add", "path": "/z/y", "value": 1}, "add /z/y: member 'z' not found"),
        ({"op": "remove", "path": "/l/9"}, "remove /l/9: can't remove a non-existent object '9'"),
        ({"op": "test", "path": "", "value": {}}, "test : the value is another"),
        ({"op": "frob", "path": "/a"}, "frob /a: Unknown operation 'frob'"),
        ({"op": "add", "path": "/a"}, "add /a: The operation does not contain a 'value' member"),
        ({"op": "add", "path": "a", "value": 1}, "add a: Location must start with /"),
        ({"op": "add", "path": "/l/x", "value": 1}, "add /l/x: 'x' is not a valid sequence index"),
        ({"path": "/a"}, "/a: Operation does not contain 'op' member"),
        (1, "an operation that is no object: "),
    ],
)
def test_an_operation_that_does_not_match_is_named_without_the_data(operation, message):
    with pytest.raises(PatchError) as refused:
        json_patch.apply(LONG, [{"op": "add", "path": "/a/c", "value": 1}, operation])
    assert str(refused.value).startswith(message)
    assert "hunter22" not in str(refused.value)
    assert len(str(refused.value)) < 300
    assert "c" not in LONG["a"]
