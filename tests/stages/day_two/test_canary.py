"""The canary volume: what is created, where it can be attached, and that nothing of it stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fluobook.kubernetes.pod_security import violations
from fluobook.stages.day_two import canary
from fluobook.stages.day_two.canary import Longhorn, job
from tests.stages.upgrade_talos.longhorn import IMAGE, deploy, left

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = Longhorn(frozenset({"a", "b"}), "longhorn", IMAGE)


def test_its_pod_is_allowed_in_every_namespace_and_needs_nothing_but_its_volume() -> None:
    made = job("a", RUNS)
    pod = made["spec"]["template"]["spec"]
    assert violations(pod, "restricted") == []
    assert [container["image"] for container in pod["containers"]] == [IMAGE]
    assert not pod["automountServiceAccountToken"]
    assert pod["nodeSelector"] == {"kubernetes.io/hostname": "a"}


def test_whatever_ends_the_run_kubernetes_deletes_it() -> None:
    spec = job("a", RUNS)["spec"]
    assert (bool(spec["activeDeadlineSeconds"]), spec["backoffLimit"]) == (True, 0)
    assert spec["ttlSecondsAfterFinished"]
    assert all("ephemeral" in volume for volume in spec["template"]["spec"]["volumes"])


@pytest.mark.parametrize(
    ("longhorn", "why"),
    [
        (Longhorn(), "does not run"),
        (Longhorn(frozenset({"a"}), "longhorn", IMAGE), "runs on a alone"),
        (Longhorn(frozenset({"a", "b"}), "", IMAGE), "no StorageClass"),
    ],
    ids=["without Longhorn", "on one node", "every class retains"],
)
def test_without_what_it_needs_it_is_left_out(longhorn: Longhorn, why: str) -> None:
    assert why in longhorn.why_not
    assert not longhorn.canary_on("a")


def test_it_is_attached_where_longhorn_runs() -> None:
    assert [name for name in ("a", "b", "plane") if RUNS.canary_on(name)] == ["a", "b"]


class Silent:
    """A reporter that nobody reads."""

    def __call__(self, message: str) -> None:
        del message


@pytest.mark.lab
def test_a_volume_is_attached_to_a_cordoned_node_written_and_read_and_nothing_stays(labs: Callable[..., Any]) -> None:
    lab = labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes")
    context = lab.context()
    deploy(context)
    kube, node = context.kube(), context.platform.workers[0]
    kube.patch("v1", "Node", node.name, body={"spec": {"unschedulable": True}})
    kube.create(job("talos-worker-2", canary.read_longhorn(kube)))  # of a run that was killed
    lab.mark()
    evidence = canary.prove(context, node.name, Silent())  # type: ignore[arg-type]
    assert evidence["exit code"] == 0
    lab.until(lambda: left(kube) == [])
    made = [r for r in lab.requests("kubernetes", mutating=True) if r["method"] == "POST"]
    assert [r["path"].partition("?")[0].rpartition("/")[2] for r in made if "fluobook" in r["agent"]] == ["jobs"]
