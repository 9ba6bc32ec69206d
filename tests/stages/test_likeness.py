"""A lab that resembles a live platform: what is read of the one is found in the other, and nothing else is touched."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.likeness import resemble

from fluobook import params
from fluobook.errors import Refused
from fluobook.kubernetes.selectors import tolerates
from fluobook.machine.schematic import Image
from fluobook.params import derive
from fluobook.run.rehearsal import planned
from fluobook.stages import nodes, upgrade_talos
from fluobook.stages.core.check import Check
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.readiness import has_condition
from fluobook.stages.create_vms.plan import Observation as VMs
from fluobook.stages.create_vms.plan import ObservedVM
from fluobook.stages.day_two.drain import Load, has_to_go
from fluobook.stages.likeness import Observed, as_running, differences, observe, state_of, unlike
from fluobook.stages.upgrade_talos.state import Running

if TYPE_CHECKING:
    from collections.abc import Callable

CHOSEN = params.load("phase3", root=params.repository_root())
PLATFORM, CLUSTER = CHOSEN.platform, CHOSEN.platform.cluster.name
NOW = PLATFORM.versions.talos
OLDER = "v1.14.0"
TO = "platform.versions.talos=" + ".".join([*NOW.split(".")[:2], str(int(NOW.split(".")[2]) + 1)])
DISKS = {"scsi0": "local-lvm:vm-1-disk-0,size=20G", "scsi1": "local-lvm:vm-1-disk-1,size=80G"}


def vm(name: str, **more: str) -> ObservedVM:
    uuid = derive.uuid_of(CLUSTER, name)
    resource = {"vmid": derive.vmid_of(CLUSTER, name), "name": name, "node": "pve1", "status": "running"}
    config = {"smbios1": f"uuid={uuid}", "tags": f"fluobook;fluobook-{CLUSTER}", "cores": "4", "memory": "8192"}
    return ObservedVM(resource, {**config, **DISKS, **more})


def node(name: str, conditions: list[dict[str, str]]) -> dict[str, Any]:
    status = {
        "conditions": conditions,
        "nodeInfo": {"kubeletVersion": "v1.35.4"},
        "addresses": [{"type": "InternalIP", "address": "10.10.0.40"}],
    }
    return {"metadata": {"name": name, "labels": {}}, "spec": {}, "status": status}


def read(*, without: tuple[str, ...] = (), former: tuple[str, ...] = (), **rest: Any) -> Observed:
    names = [each.name for each in PLATFORM.nodes]
    vms = {name: [] if name in without else [vm(name)] for name in names}
    down = [{"type": "Ready", "status": "Unknown"}]
    found = VMs(Image(NOW, "0" * 64), frozenset(), vms, strays=[vm(name) for name in former])
    return Observed(found, [node(name, down if name == "talos-worker-2" else []) for name in (*names, *former)], **rest)


def state(**given: Any) -> dict[str, Any]:
    return state_of(PLATFORM, read(**given))


def test_a_vm_that_is_gone_and_one_that_left_the_params_are_told_apart():
    found = state(without=("talos-worker-1",), former=("talos-worker-9",))
    assert found["nodes"]["talos-worker-1"]["vm"] == "absent"
    assert found["nodes"]["talos-worker-9"]["vm"] == "running"
    (former,) = found["former"]
    assert (former["name"], former["role"], former["memory_gib"], former["address"]) == (
        "talos-worker-9",
        "worker",
        8,
        "10.10.0.40",
    )
    assert found["vms"] == []


def test_a_vm_in_the_way_is_copied_with_what_says_whose_it_is_and_nothing_that_could_be_secret():
    observed = read()
    foreign = vm("prod-db", cipassword="hunter2", description="token=abc")
    vms = {**observed.vms.vms, "talos-cp-1": [*observed.vms.vms["talos-cp-1"], foreign]}
    found = state_of(PLATFORM, replace(observed, vms=replace(observed.vms, vms=vms)))
    assert [each["name"] for each in found["vms"]] == ["prod-db"]
    assert "hunter2" not in json.dumps(found)
    assert "token" not in json.dumps(found)


VOLUMES: dict[str, tuple[str, list[dict[str, Any]], list[bool]]] = {
    "healthy": ("healthy", [{}, {}], [True, True]),
    "one has failed": ("degraded", [{}, {"failedAt": "2026-01-01T00:00:00Z"}], [True, False]),
    "one was never whole": ("degraded", [{"healthyAt": ""}, {"healthyAt": "2026"}], [False, True]),
    "one is rebuilt": ("degraded", [{}, {}], [False, True]),
    "one is missing": ("degraded", [{}], [True]),
    "its node is down": ("degraded", [{}, {"nodeID": "talos-worker-2"}], [True, False]),
    "all are lost": ("faulted", [{}, {}], [False, False]),
}


@pytest.mark.parametrize("case", VOLUMES)
def test_what_a_volume_lacks_is_found_in_its_replicas(case):
    robustness, specs, healthy = VOLUMES[case]
    volume = {
        "metadata": {"name": "pvc-1"},
        "spec": {"numberOfReplicas": 2},
        "status": {"robustness": robustness},
    }
    replicas = [{"spec": {"volumeName": "pvc-1", "nodeID": "a", **spec}} for spec in specs]
    claim = {"metadata": {"name": "pvc-1"}, "spec": {"claimRef": {"namespace": "apps", "name": "data"}}}
    (found,) = state(load=Load(volumes=[volume], replicas=replicas), volumes=[claim])["volumes"]
    assert (found["claim"], found["wanted"]) == ("apps/data", 2)
    assert [copy[1] for copy in found["replicas"]] == healthy


def test_pods_are_grouped_by_their_workload_those_that_a_drain_evicts_and_that_have_no_successor():
    def pod(name: str, kind: str, owner: str, *, ready: str = "True", **labels: str) -> dict[str, Any]:
        reference = {"kind": kind, "name": owner, "controller": True}
        metadata = {"name": name, "namespace": "shop", "labels": labels, "ownerReferences": [reference]}
        spec = {"nodeName": f"on-{name}", "terminationGracePeriodSeconds": 30}
        return {"metadata": metadata, "spec": spec, "status": {"conditions": [{"type": "Ready", "status": ready}]}}

    def ending(pod: dict[str, Any]) -> dict[str, Any]:
        return {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}

    hashed = {"app": "web", "pod-template-hash": "abc"}
    pods = [
        ending(pod("web-abc-0", "ReplicaSet", "web-abc", **hashed)),
        pod("web-abc-1", "ReplicaSet", "web-abc", **hashed),
        pod("web-abc-2", "ReplicaSet", "web-abc", **hashed, extra="1"),
        pod("agent-1", "DaemonSet", "agent"),
        ending(pod("data-0", "StatefulSet", "data", ready="False")),
    ]
    web, data = state(load=Load(pods=pods))["pods"]
    assert (web["kind"], web["name"], web["labels"], web["ready"]) == ("Deployment", "web", {"app": "web"}, 2)
    assert web["nodes"] == {"web-abc-1": "on-web-abc-1", "web-abc-2": "on-web-abc-2"}
    assert (data["nodes"], data["ready"]) == ({"data-0": "on-data-0"}, 0), "its successor waits for its end"


def test_a_lab_begins_with_the_versions_of_most_nodes_and_the_nodes_that_left():
    running = {each.name: Running(OLDER) for each in PLATFORM.nodes} | {"talos-cp-1": Running(f"v{NOW}")}
    platform = as_running(CHOSEN, state(former=("talos-worker-9",), running=running)).platform
    assert platform.versions.talos == OLDER.removeprefix("v")
    assert platform.versions.kubernetes == "1.35.4"
    assert [each.name for each in as_running(CHOSEN, state()).platform.nodes] == [each.name for each in PLATFORM.nodes]
    assert "talos-worker-9" in [each.name for each in platform.nodes]
    with pytest.raises(Refused, match="no lab can be brought up"):
        as_running(CHOSEN, state(running={each.name: Running("v1.2.3") for each in PLATFORM.nodes}))


def action(name: str, **data: str) -> Action:
    return Action(name, "upgrade", f"node {name}", data=data)


@pytest.mark.parametrize(
    ("live", "lab", "expected"),
    [
        ((action("a"),), (action("a"),), []),
        ((action("a"), action("b")), (action("a"),), ["live only: upgrade node b"]),
        (
            (action("a", image="1"),),
            (action("a", image="2"),),
            ["live only: upgrade node a", "lab only: upgrade node a"],
        ),
        ((action("a"), action("b")), (action("b"), action("a")), ["the same actions in another order"]),
    ],
    ids=["equal", "one more", "other data", "other order"],
)
def test_two_plans_are_compared_action_by_action(live, lab, expected):
    assert differences(Plan("upgrade-talos", live), Plan("upgrade-talos", lab)) == expected


def test_a_gate_that_the_lab_passes_alone_is_named():
    found = {"gates": [{"name": "etcd", "passed": False, "result": "1 alarm"}, {"name": "pods", "passed": True}]}
    assert unlike(found, [Check("etcd", passed=True), Check("pods", passed=True)]) == ["etcd: 1 alarm"]
    assert unlike(found, [Check("etcd", passed=False)]) == []


ALL = (
    *("host-network", "create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs"),
    *("privileged-namespaces", "sops-age-key", "install-argocd", "root-application"),
)
BUDGET = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "never", "namespace": "shop"},
    "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
}
CONTAINER = {"name": "web", "image": "web:1", "env": [{"name": "PASSWORD", "value": "hunter2"}]}
WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [CONTAINER]}},
    },
}


def disturb(lab: Any) -> None:
    """Do by hand what happens to a platform that lives: an older node, VMs, a budget, a replica that fails."""
    environment, kube, cluster = lab.environment, lab.context().kube(), lab.chosen.platform.cluster.name
    lab.background.call(environment.machines.node("talos-worker-1").replace_image, OLDER, "")
    mine = {"smbios1": f"uuid={derive.uuid_of(cluster, 'talos-old')}", "tags": f"fluobook;fluobook-{cluster}"}
    lab.background.call(lambda: environment.proxmox["laptop"].add_vm(700, "talos-old", "pve1", config=mine))
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    kube.create(WEB)
    kube.create(BUDGET)
    replica = kube.list("longhorn.io/v1beta2", "Replica")[0]
    failed = {"spec": {"failedAt": "2026-01-01T00:00:00Z"}}
    kube.patch("longhorn.io/v1beta2", "Replica", replica["metadata"]["name"], "longhorn-system", body=failed)
    kube.patch("v1", "Node", "talos-worker-2", body={"spec": {"unschedulable": True}})
    closed = {"allowScheduling": False, "disks": {"default-disk-lab": {"storageReserved": 50 << 30}}}
    kube.patch("longhorn.io/v1beta2", "Node", "talos-worker-1", "longhorn-system", body={"spec": closed})

    def settled() -> bool | None:
        volume = kube.get("longhorn.io/v1beta2", "Volume", replica["spec"]["volumeName"], "longhorn-system")
        web = kube.get("apps/v1", "Deployment", "web", "shop")
        settled = web["status"].get("readyReplicas") == 2 and volume["status"]["robustness"] != "healthy"
        return settled or None

    lab.context().wait_until("gate", "what was changed by hand to take effect", settled)


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """A document without what a cluster invents: names of a Deployment's pods, uids that order volumes, and ports."""
    gates = {gate["name"]: gate["passed"] for gate in found["gates"]}
    pods = [{**group, "nodes": sorted(group["nodes"].values())} for group in found["pods"]]
    return {
        **found,
        "gates": gates,
        "pods": pods,
        "volumes": sorted(found["volumes"], key=lambda volume: volume["claim"]),
    }


@pytest.mark.lab
def test_what_is_read_of_one_platform_is_found_in_a_lab_that_resembles_it(labs: Callable[..., Any]) -> None:
    live, lab = labs(), labs()
    live.bring_up(*ALL)
    disturb(live)
    live.mark()
    context = live.context()
    found = json.loads(json.dumps(state_of(context.platform, observe(context))))
    assert live.requests(mutating=True) == []
    text = json.dumps(found)
    assert context.redactor.text(text) == text
    assert "hunter2" not in text
    lab.bring_up(*ALL)
    assert live.background.run(resemble(lab.environment, found)) == []
    context = lab.context()
    assert comparable(state_of(context.platform, observe(context))) == comparable(found)
    assert found["nodes"]["talos-worker-1"]["talos"] == OLDER
    assert found["nodes"]["talos-worker-2"]["cordoned"]
    assert {name: home["open"] for name, home in found["homes"].items()} == {
        "talos-worker-1": False,
        "talos-worker-2": True,
    }
    assert found["homes"]["talos-worker-1"]["free"] < 150 << 30
    assert [vm["name"] for vm in found["vms"]] == ["talos-old"]
    refused = [planned(upgrade_talos.STAGE, each) for each in (live.context(TO), lab.context(TO))]
    (text,) = {re.sub(r"web-\w+-\w+", "web", str(plan)) for plan in refused}
    assert "the disruption budget never never allows its eviction" in text
    assert "never" in [budget["name"] for budget in found["budgets"]]
    assert {volume["robustness"] for volume in found["volumes"]} > {"healthy"}


LEFT = {
    "name": "talos-worker-9",
    "role": "worker",
    "host": "pve1",
    "address": "10.10.0.40",
    "cores": 4,
    "memory_gib": 8,
    "boot_disk_gib": 20,
    "data_disk_gib": 80,
}


@pytest.mark.lab
def test_lost_nodes_nodes_that_left_and_members_of_etcd_give_the_lab_the_plan_of_the_platform(
    labs: Callable[..., Any],
) -> None:
    def brought_up(nodes: list[dict[str, Any]]) -> Any:
        lab = labs(phase="phase3", nodes=nodes)
        for name in ALL[:5]:
            stage = lab.stage(name, context=lab.context(nodes=nodes))
            stage.apply(stage.plan())
        return lab

    live = brought_up([LEFT])
    # The one that has the address of the API, which another takes over.
    holder = live.environment.kubernetes.shared.holder
    lost = next(node for node in live.chosen.platform.control_planes if node.uuid == holder)
    stopped = live.chosen.platform.nodes[-1]
    servers, platform = live.environment.proxmox, live.chosen.platform
    live.background.call(servers[platform.endpoint_of(lost).name].remove_vm, lost.vmid)
    live.background.call(servers[platform.endpoint_of(stopped).name].stop_vm, stopped.vmid)
    live.inject("factory.down")
    context = live.context()
    for name in (lost.name, stopped.name):
        ready = partial(lambda name: has_condition(context.kube().get("v1", "Node", name), "Ready"), name)
        context.wait_until("gate", f"{name} to be lost", lambda: None if ready() else True)  # noqa: B023

    def evicted(context: Any) -> None:
        """Wait until pods of lost nodes have successors elsewhere; what tolerates everything is not ready."""
        gone, every = (lost.name, stopped.name), {"key": "any", "effect": "NoExecute"}

        def stays(pod: Any) -> bool:
            return tolerates(pod["spec"], every) or bool(pod["metadata"].get("deletionTimestamp"))

        def settled() -> bool | None:
            pods = [pod for pod in context.kube().list("v1", "Pod") if has_to_go(pod)]
            on_lost = [pod for pod in pods if pod["spec"].get("nodeName") in gone]
            ready = [pod for pod in pods if has_condition(pod, "Ready")]
            return (all(map(stays, on_lost)) and len(ready) == len(pods) - len(on_lost)) or None

        context.wait_until("gate", "the pods of lost nodes to be evicted", settled)

    evicted(context)
    found = state_of(context.platform, observe(context))
    assert (found["nodes"][lost.name]["vm"], found["nodes"][stopped.name]["vm"]) == ("absent", "stopped")
    lab = brought_up(found["former"])
    assert live.background.run(resemble(lab.environment, found)) == []
    again = lab.context()
    evicted(again)
    offered = lab.environment.factory.versions
    now = state_of(again.platform, observe(again))
    assert (found["offered"], len(now["offered"])) == ([], len(offered))
    assert comparable({**now, "offered": []}) == comparable(found)
    plans = [nodes.plan(each.platform, nodes.observe(each)) for each in (context, again)]
    assert {action.object for action in plans[0].actions} >= {f"node {lost.name}", "vm talos-worker-9"}
    assert differences(*plans) == []
