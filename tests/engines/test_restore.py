"""The real etcd: a snapshot by its runbook, a cluster that comes back from it, and the loss of the quorum."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.context import POLICIES
from fluobook.errors import Unreachable
from fluobook.notebook import stage_run
from fluobook.stages import restore
from fluobook.stages.core.plan import Approval, Gate
from fluobook.stages.restore.plan import WAITS, read_member

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(580)]

BEFORE = ("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")


def named(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


def waits(client: Any) -> bool | None:
    return read_member(client).state == WAITS or None


def test_a_cluster_without_etcd_comes_back_with_what_the_snapshot_has(real_labs: Callable[..., Any]) -> None:
    lab = real_labs("phase1")
    lab.bring_up(*BEFORE)
    context = lab.context
    context.kube().create(named("before"))
    assert all(passed for _, passed in lab.bring_up("etcd-snapshot")["etcd-snapshot"])
    context.kube().create(named("later"))
    client = context.talos.client(context.platform.control_planes[0], "os:admin")
    client.reset(graceful=False, partitions=["EPHEMERAL"])
    context.wait_until("install", "the control plane to wait", partial(waits, client))
    planned = stage_run(restore.STAGE, context, Gate(Approval(), POLICIES["lab"], "")).plan()
    approval = Approval.parse(f"restore={planned.digest}")
    stage = stage_run(restore.STAGE, context, Gate(approval, POLICIES["lab"], context.platform.cluster.name))
    stage.apply(planned)
    assert all(check.passed for check in stage.verify().checks)
    kube = context.kube()
    assert kube.find("v1", "ConfigMap", "before", "default")
    assert kube.find("v1", "ConfigMap", "later", "default") is None
    kube.create(named("afterwards"))
    before = lab.mutating()
    assert stage.plan().actions == ()
    lab.bring_up("restore")
    assert lab.mutating() == before


def test_without_a_quorum_the_api_is_away_until_a_control_plane_is_back(real_labs: Callable[..., Any]) -> None:
    lab = real_labs("phase3")
    lab.bring_up("host-network", *BEFORE)
    context = lab.context
    kube = context.kube()

    def change(verb: str, name: str) -> None:
        node = context.platform.node(name)
        client = context.proxmox(context.platform.endpoint_of(node).name)
        task = getattr(client, verb)(node.host, node.vmid)
        context.wait_until("vm_start", f"{verb} {name}", lambda: not client.task_status(task).running or None)

    def written(name: str) -> Any:
        return context.wait_until("etcd", "a write", lambda: kube.apply(named(name)))

    change("stop", "talos-cp-2")
    assert written("with-two-of-three")
    change("stop", "talos-cp-3")
    with pytest.raises(Unreachable):
        kube.create(named("with-one-of-three"))
    change("start", "talos-cp-3")
    assert written("with-two-again")
    names = {obj["metadata"]["name"] for obj in kube.list("v1", "ConfigMap", "default")}
    names.discard("with-one-of-three")  # etcd may have kept what it could not confirm
    assert names == {"kube-root-ca.crt", "with-two-of-three", "with-two-again"}
