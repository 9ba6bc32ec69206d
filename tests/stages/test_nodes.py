"""Nodes that leave and nodes that are lost: what is planned, and etcd's quorum at every step."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from fluobook_lab.kube.controllers.longhorn import NAMESPACE

from fluobook import params
from fluobook.clients.talos.resources import EtcdMember
from fluobook.cluster_secrets import AccessFile
from fluobook.context import POLICIES
from fluobook.errors import DeadlineExceeded, FluobookError, Refused
from fluobook.machine.schematic import Image
from fluobook.notebook import stage_run
from fluobook.params import derive
from fluobook.stages import approve_csrs, catalogue, nodes
from fluobook.stages.core.plan import Answer, Approval, Gate, Question
from fluobook.stages.core.readiness import has_condition
from fluobook.stages.create_vms import settings
from fluobook.stages.create_vms.plan import Observation as VMs
from fluobook.stages.create_vms.plan import ObservedVM
from fluobook.stages.day_two import longhorn
from fluobook.stages.day_two.drain import CORDONED_BY, LONGHORN_API, Load
from fluobook.stages.day_two.longhorn import Storage
from tests.lab.kube.test_longhorn import crd
from tests.stages.conftest import interrupting

if TYPE_CHECKING:
    from fluobook.notebook import StageRun

PLATFORM = params.load("phase3", root=params.repository_root()).platform
CLUSTER = PLATFORM.cluster.name
PLANES = [node.name for node in PLATFORM.control_planes]
WORKERS = [node.name for node in PLATFORM.nodes if node.role == "worker"]
HOST = PLATFORM.nodes[0].host


def vm(name: str, **resource: Any) -> ObservedVM:
    """The VM of a node: as stage 1 made it if the node is in the params."""
    tags = f"fluobook;fluobook-{CLUSTER}"
    uuid = derive.uuid_of(CLUSTER, name)
    line = {"vmid": 100 + len(name), "name": name, "node": HOST, **resource}
    declared = next((each for each in PLATFORM.nodes if each.name == name), None)
    if declared is None:
        return ObservedVM(line, {"smbios1": f"uuid={uuid}", "tags": tags})
    made = settings.create_params(PLATFORM, declared, "talos.iso")
    made |= {disk: f"{made[disk]},size={size}G" for disk, size in settings.disks(declared).items()}
    size = {"maxcpu": declared.cores, "maxmem": declared.memory_gib * 2**30}
    return ObservedVM({**line, "status": "running", **size, **resource}, made)


def node(name: str, *, ready: bool = True) -> dict[str, Any]:
    status = {
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "addresses": [{"type": "InternalIP", "address": "1"}],
    }
    return {"metadata": {"name": name}, "spec": {}, "status": status}


def observed(*, without: tuple[str, ...] = (), more: tuple[str, ...] = (), down: tuple[str, ...] = (), **rest: Any):
    """All nodes but those `without` a VM; `more` have joined and are in no params, `down` are not Ready."""
    of_nodes = {each.name: [] if each.name in without else [vm(each.name)] for each in PLATFORM.nodes}
    strays = [vm(name) for name in more if name not in without]
    names = [*PLANES, *WORKERS, *more]
    voters = [name for name in names if "cp" in name]
    return nodes.Observation(
        VMs(Image("1.14.1", "0" * 64), frozenset(), of_nodes, strays=strays),
        [node(name, ready=name not in (*without, *down)) for name in names],
        [EtcdMember(f"{number:016x}", name, (), (), learner=False) for number, name in enumerate(voters, 1)],
        **rest,
    )


def steps(observation: nodes.Observation) -> list[str]:
    return [action.id for action in nodes.plan(PLATFORM, observation).actions]


def test_a_platform_that_is_whole_needs_nothing():
    assert steps(observed()) == []


def test_a_lost_node_is_forgotten_and_the_bring_up_is_named_that_makes_it_anew():
    plan = nodes.plan(PLATFORM, observed(without=(PLANES[1],)))
    assert [action.id for action in plan.actions] == [f"delete etcd member {PLANES[1]}", f"delete node {PLANES[1]}"]
    assert plan.destroys == ()
    assert f"makes {PLANES[1]} anew" in plan.notes[0]
    assert steps(observed(without=(WORKERS[0],))) == [f"delete node {WORKERS[0]}"]


def test_a_node_that_left_the_params_is_drained_leaves_etcd_and_is_destroyed_workers_first():
    plan = nodes.plan(PLATFORM, observed(more=("old-cp", "old-worker")))
    assert [f"{action.verb} {action.object}" for action in plan.actions] == [
        f"{step} {name}"
        for name in ("old-worker", "old-cp")
        for step in ("drain node", "reset machine", "delete node", "delete vm")
    ]
    assert all(action.needs == (before.id,) for before, action in zip(plan.actions, plan.actions[1:], strict=False))
    assert plan.destroys == ("old-worker", "old-cp")


def test_a_former_node_that_is_down_is_removed_from_etcd_by_the_others():
    assert steps(observed(more=("old-cp",), down=("old-cp",)))[:2] == [
        "delete etcd member old-cp",
        "delete node old-cp",
    ]


def test_a_node_that_is_in_the_params_again_after_its_drain_is_uncordoned():
    """But not one that somebody else cordoned, nor one that still leaves."""
    found = observed(more=("talos-worker-9",))
    for each in found.nodes:
        by = nodes.NAME if each["metadata"]["name"] in (WORKERS[0], "talos-worker-9") else ""
        each["metadata"]["annotations"] = {CORDONED_BY: by}
        each["spec"]["unschedulable"] = True
    first, *rest = nodes.plan(PLATFORM, found).actions
    assert (first.id, first.object) == (f"uncordon node {WORKERS[0]}", f"node {WORKERS[0]}")
    assert rest[0].needs == (first.id,)
    assert not [action for action in rest if action.verb == "uncordon"]


def resized(*, memory: int = 1, **resource: Any) -> nodes.Observation:
    """The first worker's VM has so many GiB of memory."""
    observation = observed()
    machine = vm(WORKERS[0], **{"maxmem": memory * 2**30, **resource})
    machine = replace(machine, config={**machine.config, "memory": str(memory * 1024)})
    return replace(observation, vms=replace(observation.vms, vms={**observation.vms.vms, WORKERS[0]: [machine]}))


def cordoned(observation: nodes.Observation, by: str = nodes.NAME) -> nodes.Observation:
    marked = observation.node(WORKERS[0])
    assert isinstance(marked, dict)
    marked["metadata"]["annotations"] = {CORDONED_BY: by}
    marked["spec"]["unschedulable"] = True
    return observation


def test_a_node_is_drained_for_a_new_size_that_needs_a_power_cycle():
    worker = WORKERS[0]
    plan = nodes.plan(PLATFORM, resized())
    assert [a.id for a in plan.actions] == [f"drain node {worker}", f"change {worker}", f"uncordon node {worker}"]
    assert [a.needs for a in plan.actions] == [(), (f"drain node {worker}",), (f"change {worker}",)]
    assert any(note.startswith(f"interrupted: {worker}, while its VM is switched off and on") for note in plan.notes)


def test_a_resize_that_was_killed_goes_on_where_it_was():
    worker, same = WORKERS[0], PLATFORM.node(WORKERS[0]).memory_gib
    assert steps(cordoned(resized())) == [f"drain node {worker}", f"change {worker}", f"uncordon node {worker}"]
    off = cordoned(resized(status="stopped"))
    assert steps(off)[1:] == [f"change {worker}", f"start {worker}", f"uncordon node {worker}"]
    assert steps(cordoned(resized(memory=same))) == [f"uncordon node {worker}"]
    assert steps(cordoned(resized(memory=same), by="upgrade-talos")) == []


def test_a_resize_whose_drain_could_never_end_does_not_begin():
    labels = {"app": "db"}
    pod = {"metadata": {"name": "db-0", "namespace": "x", "labels": labels}, "spec": {"nodeName": WORKERS[0]}}
    budget = {"metadata": {"name": "db", "namespace": "x"}, "spec": {"maxUnavailable": 0}}
    budget["spec"]["selector"] = {"matchLabels": labels}  # type: ignore[index]
    with pytest.raises(Refused, match="never allows its eviction"):
        nodes.plan(PLATFORM, replace(resized(), load=Load([pod], [budget])))


def test_a_node_that_lives_is_not_lost_although_nobody_sees_its_vm():
    unseen = observed(without=(WORKERS[0],))
    ready = nodes.Observation(unseen.vms, [node(name) for name in [*PLANES, *WORKERS]], unseen.members)
    with pytest.raises(Refused, match=f"no VM is seen for {WORKERS[0]}"):
        steps(ready)
    address = next(each.address for each in PLATFORM.nodes if each.name == WORKERS[0])
    answering = nodes.Observation(replace(unseen.vms, answering=frozenset({address})), unseen.nodes, unseen.members)
    with pytest.raises(Refused, match=f"no VM is seen for {WORKERS[0]}"):
        steps(answering)


@pytest.mark.parametrize(
    ("more", "without", "down", "refused"),
    [
        (("old-cp",), (), (PLANES[0],), False),
        ((), (PLANES[0],), (PLANES[1],), True),
        (("old-cp",), (), (PLANES[0], PLANES[1]), True),
        ((), (PLANES[0], PLANES[1]), (), True),
    ],
    ids=["4 voters, 1 down, a healthy one leaves", "2 of 3 down", "4 voters, 2 down", "2 of 3 lost"],
)
def test_etcd_keeps_its_quorum_at_every_step_or_nothing_begins(more, without, down, refused):
    observation = observed(more=more, without=without, down=down)
    if not refused:
        assert steps(observation)
        return
    with pytest.raises(Refused, match="no quorum"):
        steps(observation)


GIB = 1 << 30


def home(name: str, *, allowed: bool = True, reserved: int = 0, by: str = "") -> dict[str, Any]:
    """Longhorn's entry of a node with one disk of 100 GiB."""
    disk = {"allowScheduling": True, "storageReserved": reserved * GIB}
    status = {"diskStatus": {"d": {"storageMaximum": 100 * GIB, "storageScheduled": 0}}}
    metadata = {"name": name, "annotations": {CORDONED_BY: by} if by else {}}
    return {"metadata": metadata, "spec": {"allowScheduling": allowed, "disks": {"d": disk}}, "status": status}


def stored(volumes: dict[str, str], *homes: dict[str, Any], size: int = 10, **rest: Any) -> nodes.Observation:
    """Longhorn on the workers and `homes`; volumes by name, each with the nodes of its copies."""
    found = observed(**rest)
    claims = [{"metadata": {"name": name}, "spec": {"size": str(size * GIB)}} for name in volumes]
    copies = [{"spec": {"volumeName": n, "nodeID": at}} for n, places in volumes.items() for at in places.split()]
    entries = [home(name) for name in WORKERS if name not in {each["metadata"]["name"] for each in homes}]
    storage = Storage([*entries, *homes], claims, copies, found.nodes)
    return replace(found, storage=storage, load=Load(volumes=claims, replicas=copies))


ONE, TWO, THREE = WORKERS[:3]
OLD = home("old-worker")
STUCK = {
    "its only copy moves": ({"pvc-1": "old-worker"}, [OLD], {}, ""),
    "one of two moves": ({"pvc-1": f"old-worker {ONE}"}, [OLD], {}, ""),
    "there are as many copies as nodes": (
        {"pvc-1": f"old-worker {ONE} {TWO} {THREE}"},
        [OLD],
        {},
        "no other node takes a copy of pvc-1, 4 copies; 3 other nodes accept copies: add a worker first, or want fewer",
    ),
    "the others are closed": (
        {"pvc-1": "old-worker"},
        [OLD, *(home(name, allowed=False) for name in WORKERS)],
        {},
        "no other node takes a copy of pvc-1, 1 copy; 0 other nodes accept copies: add a worker first",
    ),
    "the others are down": ({"pvc-1": "old-worker"}, [OLD], {"down": tuple(WORKERS)}, "0 other nodes accept copies"),
    "the other leaves too": (
        {"pvc-1": f"old-worker {ONE} {TWO}"},
        [OLD, home("other"), *(home(name, allowed=name != THREE) for name in WORKERS)],
        {"more": ("old-worker", "other")},
        "no other node takes a copy of pvc-1, 3 copies; 2 other nodes accept copies",
    ),
    "no space": (
        {"pvc-1": "old-worker", "pvc-2": "old-worker"},
        [OLD, *(home(name, reserved=reserved) for name, reserved in zip(WORKERS, (100, 85, 95), strict=False))],
        {},
        f"no node has space for pvc-2, 10 GiB; the most free is on {TWO}, 5 GiB: grow data_disk_gib of another worker",
    ),
}


@pytest.mark.parametrize("name", STUCK)
def test_copies_of_volumes_that_have_nowhere_to_go_keep_a_node_from_leaving(name):
    volumes, homes, rest, refused = STUCK[name]
    observation = stored(volumes, *homes, **{"more": ("old-worker",), **rest})
    if not refused:
        assert "evict Longhorn's node old-worker" in steps(observation)
        return
    with pytest.raises(Refused) as raised:
        steps(observation)
    assert refused in raised.value.message


def test_a_leaving_node_hands_over_its_copies_before_its_pods_and_its_entry_goes_last():
    plan = nodes.plan(PLATFORM, stored({"pvc-1": f"old-worker {ONE}"}, OLD, more=("old-worker",)))
    assert [f"{action.verb} {action.object}" for action in plan.actions] == [
        "evict Longhorn's node old-worker",
        "drain node old-worker",
        "reset machine old-worker",
        "delete node old-worker",
        "delete Longhorn's node old-worker",
        "delete vm old-worker",
    ]
    assert plan.destroys == ("old-worker",)
    assert "1 copy of volumes move" in plan.notes[0]


def test_the_copies_on_a_lost_node_are_made_elsewhere_and_only_copies_are_named():
    volumes = {"pvc-1": f"{ONE} {TWO}", "pvc-2": ONE, "pvc-3": f"{ONE} {TWO} {THREE}"}
    plan = nodes.plan(PLATFORM, stored(volumes, without=(ONE,)))
    assert [f"{action.verb} {action.object}" for action in plan.actions] == [
        f"delete node {ONE}",
        f"delete copy of pvc-2 on {ONE}",
        f"delete copies of volumes on {ONE}",
        f"await volumes that {ONE} had",
        f"delete Longhorn's node {ONE}",
    ]
    assert plan.destroys == ("pvc-2",)
    assert "degraded until there is another node for a copy: pvc-3" in plan.notes
    both = nodes.plan(PLATFORM, stored({"pvc-1": f"{ONE} {TWO}"}, without=(ONE, TWO)))
    assert both.destroys == ("pvc-1",)


def test_a_removal_that_was_killed_goes_on_where_it_was():
    """Kubernetes has forgotten the node, Longhorn has not; its copies are deleted, or not all of them."""
    found = stored({"pvc-1": f"{ONE} {TWO}"}, without=(ONE,))
    found = replace(found, nodes=[each for each in found.nodes if each["metadata"]["name"] != ONE])
    begun = nodes.plan(PLATFORM, stored({"pvc-1": f"{ONE} {TWO}"}, without=(ONE,)))
    assert nodes.plan(PLATFORM, found).rest_of(begun)
    found = replace(found, storage=replace(found.storage, replicas=()))
    assert steps(found) == [f"await volumes that {ONE} had", f"delete Longhorn's node {ONE}"]


def test_a_node_that_is_in_the_params_again_takes_copies_again_unless_somebody_else_closed_it():
    homes = [home(ONE, allowed=False, by=nodes.NAME), home(TWO, allowed=False)]
    assert steps(stored({}, *homes)) == [f"uncordon Longhorn's node {ONE}"]


def other_disk(name: str, taken_out: str = "") -> dict[str, Any]:
    """Longhorn's entry of a node with another disk than "old"; or without it, because the run was killed."""
    entry = home(name)
    message = "record diskUUID doesn't match the one on the disk"
    ready = {"type": "Ready", "status": "False", "reason": "DiskFilesystemChanged", "message": message}
    entry["status"]["diskStatus"]["d"] |= {"diskUUID": "old", "conditions": [ready]}
    if taken_out:
        entry["metadata"]["annotations"] = {longhorn.RENEWED: taken_out}
        entry["spec"]["disks"], entry["status"]["diskStatus"] = {}, {}
    return entry


def test_a_node_that_was_made_again_too_early_gets_its_disk_back_and_only_copies_are_named():
    found = stored({"pvc-1": f"{ONE} {TWO}", "pvc-2": ONE}, other_disk(ONE))
    replicas = [{"spec": {**each["spec"], "diskID": "old"}} for each in found.storage.replicas]
    newer = {"spec": {"volumeName": "pvc-3", "nodeID": ONE, "diskID": "new"}}
    plan = nodes.plan(PLATFORM, replace(found, storage=replace(found.storage, replicas=[*replicas, newer])))
    renewed = f"renew disk d of Longhorn's node {ONE}"
    assert [f"{action.verb} {action.object}" for action in plan.actions] == [
        f"delete copy of pvc-2 on {ONE}",
        f"delete copies of volumes on {ONE}",
        renewed,
        f"await volumes that {ONE} had",
    ]
    assert plan.destroys == ("pvc-2",)
    assert [action.data["disks"] for action in plan.actions[:2]] == [["old"]] * 2
    assert steps(stored({}, other_disk(ONE, '{"d": {}}'))) == [renewed]
    assert steps(stored({}, other_disk(ONE), down=(ONE,))) == []


@pytest.mark.parametrize(("robustness", "waits"), [("healthy", False), ("unknown", False), ("degraded", True)])
def test_volumes_are_waited_for_only_if_they_lack_something(robustness, waits):
    found = stored({"pvc-1": f"{TWO} {THREE}"}, without=(ONE,))
    volumes = [{**each, "status": {"robustness": robustness}} for each in found.storage.volumes]
    actions = steps(replace(found, storage=replace(found.storage, volumes=volumes)))
    assert (f"await volumes that {ONE} had" in actions) is waits


def test_a_talosconfig_that_names_other_nodes_is_renewed_at_the_end():
    other = replace(observed(more=("old-worker",)), talosconfig=AccessFile(exists=True, problem="names other nodes"))
    last = nodes.plan(PLATFORM, other).actions[-1]
    assert (last.verb, last.object) == ("renew", "talosconfig")
    assert last.needs == (nodes.plan(PLATFORM, other).actions[-2].id,)
    assert steps(replace(observed(), talosconfig=AccessFile(exists=False, problem="does not exist"))) == []


def test_a_machine_of_somebody_else_that_joined_is_left_alone():
    foreign = ObservedVM({**vm("guest").resource}, {**vm("guest").config, "smbios1": "uuid=" + "0" * 8 + "-0000" * 3})
    observation = observed(more=("guest",))
    observation = nodes.Observation(
        VMs(observation.vms.image, frozenset(), observation.vms.vms, strays=[foreign]),
        observation.nodes,
        observation.members,
    )
    plan = nodes.plan(PLATFORM, observation)
    assert plan.actions == ()
    assert plan.notes[0].startswith("left alone: guest")


@pytest.fixture(scope="module")
def brought_up(shared_labs: Any) -> Any:
    """Phase 3 without Argo CD, whose Longhorn has two volumes: one in two copies, one in a single copy."""
    lab = shared_labs(phase="phase3")
    lab.bring_up(*UNTIL_NODES)
    lab.background.call(with_volumes, lab.environment.kubernetes.store)
    return lab


UNTIL_NODES = ("host-network", "create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")


def with_volumes(store: Any) -> None:
    for kind in ("Volume", "Replica", "Node", "Setting"):
        store.create(crd(f"{kind.lower()}s", kind))
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    for number in (1, 2):
        kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "driver.longhorn.io"}
        parameters = {"numberOfReplicas": str(number)}
        store.create({**kind, "metadata": {"name": f"copies-{number}"}, "parameters": parameters})
        claim = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "name": f"data-{number}", "namespace": "default"}
        spec = {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "claimRef": claim}
        csi = {"driver": "driver.longhorn.io", "volumeHandle": f"pvc-{number}"}
        spec |= {"storageClassName": f"copies-{number}", "csi": csi}
        metadata = {"name": f"pvc-{number}"}
        store.create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec})


def places(lab: Any, volume: str) -> list[str]:
    replicas = lab.context().kube().list(LONGHORN_API, "Replica", NAMESPACE)
    return sorted(each["spec"]["nodeID"] for each in replicas if each["spec"]["volumeName"] == volume)


def attach(lab: Any, node: str, number: int = 2) -> None:
    """A pod on that node, and on no other, uses the volume of that number."""

    def pod(store: Any) -> None:
        if store.find("v1", "Pod", f"app-{number}", "default"):
            store.delete("v1", "Pod", f"app-{number}", "default", options={"gracePeriodSeconds": 0})
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": f"data-{number}"}}]
        container = {"name": "main", "image": "lab.invalid/main:1"}
        spec = {"nodeName": node, "containers": [container], "volumes": volumes}
        metadata = {"name": f"app-{number}", "namespace": "default"}
        store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    lab.background.call(pod, lab.environment.kubernetes.store)


def until_placed(lab: Any, volume: str, copies: int) -> list[str]:
    context = lab.context()
    wanted = f"{copies} copies of {volume}"
    return context.wait_until("gate", wanted, lambda: p if len(p := places(lab, volume)) == copies else None)


def apply(context: Any, *, typed: tuple[str, ...] | None = None, after: int = 0) -> StageRun:
    """Plan and apply; every name is typed, and those are the ones expected; killed at the action of that number."""

    def ask(question: Question) -> Answer:
        assert typed is None or set(question.names) == set(typed)
        return Answer("prompt", question.word)

    stage = stage_run(catalogue.find("nodes"), context, Gate(Approval(), POLICIES["lab"], CLUSTER, ask=ask))
    if after:
        performing = replace(stage.stage, perform=interrupting(stage.stage.perform, after))
        stage = stage_run(performing, context, Gate(Approval(), POLICIES["lab"], CLUSTER, ask=ask))
    stage.apply(stage.plan())
    return stage


def destroy(lab: Any, node: params.Node) -> None:
    """The VM of a node goes, with its disks, and Kubernetes notices it."""
    context = lab.context()
    machine = context.proxmox(context.platform.endpoint_of(node).name)
    machine.wait(machine.stop(node.host, node.vmid), deadline=60)
    machine.wait(machine.delete(node.host, node.vmid), deadline=60)
    context.wait_until(
        "nodes_ready",
        f"{node.name} to be NotReady",
        lambda: None if has_condition(context.kube().get("v1", "Node", node.name), "Ready") else True,
    )


def unchanged(lab: Any, context: Any) -> None:
    lab.mark()
    assert apply(context).verify().ok
    assert lab.requests(mutating=True) == []


@pytest.mark.lab
def test_a_lost_control_plane_is_replaced(brought_up: Any) -> None:
    lab, lost = brought_up, brought_up.chosen.platform.control_planes[1]
    destroy(lab, lost)
    assert apply(lab.context()).verify().ok
    first = lab.context().talos.client(lab.chosen.platform.control_planes[0])
    assert {member.hostname for member in first.etcd_members()} == set(PLANES) - {lost.name}
    lab.bring_up(*UNTIL_NODES)
    assert {(member.hostname, member.learner) for member in first.etcd_members()} == {(name, False) for name in PLANES}
    unchanged(lab, lab.context())


@pytest.mark.lab
def test_a_worker_that_was_made_again_too_early_takes_copies_again_although_it_is_killed_at_every_action(
    brought_up: Any,
) -> None:
    lab = brought_up
    (only,), pair = until_placed(lab, "pvc-1", 1), until_placed(lab, "pvc-2", 2)
    lost = next(node for node in lab.chosen.platform.nodes if node.name in pair and node.name != only)
    attach(lab, next(name for name in pair if name != lost.name))
    destroy(lab, lost)
    lab.bring_up(*UNTIL_NODES)
    kube = lab.context().kube()

    def copies() -> list[tuple[str, bool]]:
        replicas = (each["spec"] for each in kube.list(LONGHORN_API, "Replica", NAMESPACE))
        return sorted((s["nodeID"], bool(s.get("failedAt"))) for s in replicas if s["volumeName"] == "pvc-2")

    lab.until(lambda: len(copies()) == 3)
    assert (lost.name, True) in copies()
    lab.until(lambda: longhorn.replaced_disks(kube.get(LONGHORN_API, "Node", lost.name, NAMESPACE)))
    assert not nodes.verify(lab.context(), nodes.observe(lab.context()))[3].passed

    def closed(*_: Any, **__: Any) -> None:
        raise FluobookError("the laptop was closed")

    context = lab.context()
    context.wait_until = closed
    with pytest.raises(FluobookError, match="the laptop was closed"):
        longhorn.renew_disk(context, lost.name, "default-disk-lab")
    for after in (1, 2):
        with pytest.raises(FluobookError, match="the laptop was closed"):
            apply(lab.context(), typed=(), after=after)
    assert apply(lab.context(), typed=()).verify().ok
    assert (lost.name, True) not in copies()
    assert longhorn.degraded(kube) == []
    unchanged(lab, lab.context())
    context = lab.context()
    home = context.kube().get(LONGHORN_API, "Node", lost.name, NAMESPACE)
    assert list(longhorn.open_homes(Storage([home], nodes=[context.kube().get("v1", "Node", lost.name)]), ())) == [
        lost.name
    ]
    assert home["spec"]["disks"]["default-disk-lab"]["allowScheduling"]


@pytest.mark.lab
def test_no_node_is_power_cycled_while_a_volume_lacks_a_copy(brought_up: Any) -> None:
    lab = brought_up
    away, other = until_placed(lab, "pvc-2", 2)
    attach(lab, other)
    replicas = lab.context().kube().list(LONGHORN_API, "Replica", NAMESPACE)
    failed = next(each for each in replicas if (each["spec"]["volumeName"], each["spec"]["nodeID"]) == ("pvc-2", away))

    def fail(when: str | None, state: str) -> None:
        body = {"spec": {"failedAt": when}}
        kube = lab.context().kube()
        kube.patch(LONGHORN_API, "Replica", failed["metadata"]["name"], NAMESPACE, body=body)
        wanted = f"pvc-2 to be {state}"
        volume = partial(kube.get, LONGHORN_API, "Volume", "pvc-2", NAMESPACE)
        lab.context().wait_until("gate", wanted, lambda: volume()["status"]["robustness"] == state or None)

    fail("2026-01-01T00:00:00Z", "degraded")
    more = f"nodes.{away}.memory_gib=32"
    lab.mark()
    stage = lab.stage("create-vms", more, context=lab.context(more, deadlines={"gate": 1}))
    with pytest.raises(DeadlineExceeded) as raised:
        stage.apply(stage.plan())
    assert "degraded: pvc-2" in raised.value.cause
    assert lab.requests("proxmox", mutating=True) == []
    fail(None, "healthy")
    for changes in ((more,), ()):
        stage = lab.stage("create-vms", *changes)
        stage.apply(stage.plan())
    assert longhorn.degraded(lab.context().kube()) == []


@pytest.mark.lab
def test_a_worker_is_drained_changed_and_in_service_again_although_it_is_killed_at_every_action(
    brought_up: Any,
) -> None:
    lab = brought_up
    (only,) = until_placed(lab, "pvc-1", 1)
    worker = next(name for name in WORKERS if name != only)
    more = f"nodes.{worker}.memory_gib=40"
    for after in (1, 2):
        with pytest.raises(FluobookError, match="the laptop was closed"):
            apply(lab.context(more), after=after)
    apply(lab.context(more))
    assert has_condition(registered := lab.context().kube().get("v1", "Node", worker), "Ready")
    assert not registered["spec"].get("unschedulable")
    unchanged(lab, lab.context(more))
    apply(lab.context())
    assert longhorn.degraded(lab.context().kube()) == []


@pytest.mark.lab
def test_the_copies_on_a_lost_worker_are_made_elsewhere_and_only_the_lost_volume_is_typed(brought_up: Any) -> None:
    lab = brought_up
    (only,) = until_placed(lab, "pvc-1", 1)
    until_placed(lab, "pvc-2", 2)
    lost = next(node for node in lab.chosen.platform.nodes if node.name == only)
    attach(lab, next(name for name in WORKERS if name != only))
    attach(lab, only, 1)  # Longhorn keeps its entry of the node until this pod is gone, too
    destroy(lab, lost)
    assert apply(lab.context(), typed=("pvc-1",)).verify().ok
    assert places(lab, "pvc-1") == []
    assert set(places(lab, "pvc-2")) == set(WORKERS) - {lost.name}
    assert lab.context().kube().find(LONGHORN_API, "Node", lost.name, NAMESPACE) is None
    unchanged(lab, lab.context())
    lab.bring_up(*UNTIL_NODES)
    unchanged(lab, lab.context())
    context = lab.context()
    home = context.wait_until(
        "gate", "Longhorn's node", lambda: context.kube().find(LONGHORN_API, "Node", lost.name, NAMESPACE)
    )
    assert home["spec"]["allowScheduling"]


@pytest.mark.lab
def test_a_worker_hands_over_its_copies_and_leaves_although_it_is_killed_at_every_action(brought_up: Any) -> None:
    lab = brought_up
    leaves = next(node for node in lab.chosen.platform.nodes if node.name == until_placed(lab, "pvc-2", 2)[0])
    attach(lab, next(name for name in WORKERS if name != leaves.name))

    def without() -> Any:
        context = lab.context()
        remaining = tuple(node for node in context.platform.nodes if node.name != leaves.name)
        context.platform = context.platform.model_copy(update={"nodes": remaining})
        return context

    killed = 0
    for after in range(1, 8):
        with suppress(FluobookError):
            apply(without(), after=after)
            continue
        killed += 1
    assert killed >= 4
    assert apply(without()).verify().ok
    left = set(places(lab, "pvc-2"))
    assert len(left) == 2
    assert leaves.name not in left
    context = lab.context()
    assert leaves.vmid not in lab.environment.proxmox[context.platform.endpoint_of(leaves).name].inventory.vms
    assert context.kube().find("v1", "Node", leaves.name) is None
    assert context.kube().find(LONGHORN_API, "Node", leaves.name, NAMESPACE) is None
    assert leaves.address not in (context.home / "talosconfig").read_text()
    assert all(check.passed for check in approve_csrs.verify(without(), approve_csrs.observe(without())))
    unchanged(lab, without())
