"""Following a kind: from the first list on, through lost histories and connections, without missing anything."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.clients.kube import Change
from fluobook.clients.kube.watching import head_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.lab

WAIT = 60


class Recorder:
    """What an informer told; can be waited for."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []
        self.errors: list[Exception] = []
        self._changed = threading.Condition()

    def __call__(self, change: Change) -> None:
        with self._changed:
            self.changes.append((change.type, change.object["metadata"]["name"]))
            self._changed.notify_all()

    def failed(self, error: Exception) -> None:
        with self._changed:
            self.errors.append(error)
            self._changed.notify_all()

    def wait(self, done: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(done, WAIT), (self.changes[-5:], self.errors)


def settings(name: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


@pytest.fixture
def rig(kubernetes: Callable[..., Any]) -> Any:
    return kubernetes(controllers=False)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_existing_objects_and_changes_are_reported(rig: Any, recorder: Recorder) -> None:
    rig.store("create", settings("a"))
    informer = rig.kube.inform("v1", "ConfigMap", recorder)
    assert informer.synced.wait(WAIT)
    rig.store("create", settings("b"))
    rig.store("patch", "v1", "ConfigMap", "b", "default", body={"data": {"x": "y"}})
    rig.store("delete", "v1", "ConfigMap", "a", "default")
    recorder.wait(lambda: len(recorder.changes) == 4)
    informer.stop()
    assert recorder.changes == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "a")]
    assert [item["metadata"]["name"] for item in informer.items()] == ["b"]


def test_nothing_is_reported_after_stop(rig: Any, recorder: Recorder) -> None:
    informer = rig.kube.inform("v1", "ConfigMap", recorder)
    assert informer.synced.wait(WAIT)
    informer.stop()
    rig.store("create", settings("a"))
    assert recorder.changes == []
    assert not [thread for thread in threading.enumerate() if thread.name == "inform ConfigMap"]


def test_selectors_select_objects(rig: Any, recorder: Recorder) -> None:
    informer = rig.kube.inform("v1", "ConfigMap", recorder, namespace="default", labels="tier=front")
    assert informer.synced.wait(WAIT)
    rig.store("create", settings("a", tier="back"))
    rig.store("create", settings("b", tier="front"))
    recorder.wait(lambda: bool(recorder.changes))
    informer.stop()
    assert recorder.changes == [("ADDED", "b")]


def test_after_an_expired_history_the_objects_are_listed_again(rig: Any, recorder: Recorder) -> None:
    for name in ("a", "b"):
        rig.store("create", settings(name))
    informer = rig.kube.inform("v1", "ConfigMap", recorder)
    recorder.wait(lambda: len(recorder.changes) == 2)

    def rewrite() -> None:
        store = rig.lab.api.store
        store.storage.compact(("", "configmaps"))
        store.delete("v1", "ConfigMap", "a", "default")
        store.create(settings("c"))

    rig.background.call(rewrite)
    recorder.wait(lambda: {("DELETED", "a"), ("ADDED", "c")} <= set(recorder.changes))
    informer.stop()
    assert [item["metadata"]["name"] for item in informer.items()] == ["b", "c"]
    assert len(recorder.changes) == len(set(recorder.changes))


def test_a_lost_connection_is_reported_and_made_again(rig: Any, recorder: Recorder) -> None:
    informer = rig.kube.inform("v1", "ConfigMap", recorder, on_error=recorder.failed)
    assert informer.synced.wait(WAIT)
    rig.background.run(rig.lab.api.stop())
    recorder.wait(lambda: bool(recorder.errors))
    assert informer.error is not None
    rig.store("create", settings("a"))
    rig.background.run(rig.restart())
    recorder.wait(lambda: ("ADDED", "a") in recorder.changes)
    assert informer.error is None
    informer.stop()


def test_a_thousand_changes_arrive_in_order(rig: Any, recorder: Recorder) -> None:
    informer = rig.kube.inform("v1", "ConfigMap", recorder)
    assert informer.synced.wait(WAIT)

    def burst() -> None:
        for number in range(1000):
            rig.lab.api.store.create(settings(f"s{number:04}"))

    rig.background.call(burst)
    recorder.wait(lambda: len(recorder.changes) == 1000)
    informer.stop()
    assert recorder.changes == [("ADDED", f"s{number:04}") for number in range(1000)]


METADATA = {"name": "web", "namespace": "shop", "resourceVersion": "7"}


@pytest.mark.parametrize(
    "obj",
    [
        {"metadata": METADATA, "spec": {"replicas": 1}, "status": {}},
        {"metadata": METADATA, "data": {"key": "value"}},
        {"spec": {"replicas": 1}, "metadata": METADATA},
        {"metadata": {"annotations": {"applied": '{"a":1,"spec":{"b":2}}', "spec": "x"}, **METADATA}, "spec": {}},
        {"metadata": {"managedFields": [{"fieldsV1": {"f:spec": {"f:replicas": {}}}}], **METADATA}, "spec": {}},
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_an_event_is_read_up_to_its_objects_spec_and_the_object_on_request(obj, separators):
    line = json.dumps({"type": "MODIFIED", "object": obj}, separators=separators).encode()
    event = head_of(line)
    assert event["type"] == "MODIFIED"
    assert event["object"]["metadata"] == obj["metadata"]
    assert Change("MODIFIED", line=line).object == obj


def test_an_error_event_is_read_completely():
    status = {"kind": "Status", "metadata": {}, "code": 410, "reason": "Expired"}
    assert head_of(json.dumps({"type": "ERROR", "object": status}).encode())["object"] == status
