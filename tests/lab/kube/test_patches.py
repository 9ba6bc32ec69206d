"""Strategic merge patches, case by case, as kubectl makes them."""

from __future__ import annotations

from typing import Any

import pytest
from fluobook_lab.kube import schemas
from fluobook_lab.kube.patches import merge, strategic

POD = schemas.named("io.k8s.api.core.v1.PodSpec")


def names(spec: dict[str, Any], key: str = "containers") -> list[str]:
    return [item["name"] for item in spec[key]]


OLD = {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}], "nodeSelector": {"x": "1"}}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"containers": [{"name": "a", "image": "2"}]}, [("a", "2"), ("b", "1")]),
        ({"containers": [{"name": "c", "image": "2"}]}, [("c", "2"), ("a", "1"), ("b", "1")]),
        ({"containers": [{"name": "a", "$patch": "delete"}]}, [("b", "1")]),
        ({"containers": [{"$patch": "replace"}, {"name": "z", "image": "9"}]}, [("z", "9")]),
        ({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}, [("b", "1"), ("a", "1")]),
    ],
)
def test_containers_merge_by_name(patch: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    merged = strategic(OLD, patch, POD)
    assert [(container["name"], container["image"]) for container in merged["containers"]] == expected
    assert names(OLD) == ["a", "b"]


def test_null_deletes_and_maps_merge() -> None:
    assert "nodeSelector" not in strategic(OLD, {"nodeSelector": None}, POD)
    assert strategic(OLD, {"nodeSelector": {"y": "2"}}, POD)["nodeSelector"] == {"x": "1", "y": "2"}
    assert strategic(OLD, {"nodeSelector": {"$patch": "replace", "y": "2"}}, POD)["nodeSelector"] == {"y": "2"}


def test_lists_of_plain_values() -> None:
    meta = schemas.named(schemas.OBJECT_META)
    old = {"finalizers": ["a", "b"]}
    assert strategic(old, {"finalizers": ["c"]}, meta)["finalizers"] == ["c", "a", "b"]
    assert strategic(old, {"$deleteFromPrimitiveList/finalizers": ["a"]}, meta)["finalizers"] == ["b"]


def test_retained_keys_push_the_others_out() -> None:
    strategy = schemas.named("io.k8s.api.apps.v1.DeploymentSpec")
    old = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}
    patch = {"strategy": {"type": "Recreate", "$retainKeys": ["type"]}}
    assert strategic(old, patch, strategy)["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("value", "patch", "expected"),
    [
        ({"a": 1}, {"a": None}, {}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, {"a": {"b": None}}, {"a": {}}),
        ("text", {"a": 1}, {"a": 1}),
    ],
)
def test_merge_patches_follow_the_rfc(value: Any, patch: Any, expected: Any) -> None:
    assert merge(value, patch) == expected
