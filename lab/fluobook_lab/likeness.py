"""Lets a lab that was brought up resemble a live platform, by the document of `fluobook.stages.likeness`.

Only what differs is set: versions, VMs, members of etcd, cordons, disruption budgets, where pods run, replicas of
volumes, and Longhorn's entries of nodes. Workloads that the tree does not have get stand-ins: as many pods, with their
labels, that do nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fluobook.kubernetes.selectors import workload_of
from fluobook_lab.kube.controllers.longhorn import API, DISK, DISK_BYTES, HOMES, NAMESPACE
from fluobook_lab.kube.objects import is_true, name_of, namespace_of, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fluobook_lab.environment import Environment
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store

    State = Mapping[str, Any]

POLL = 1.0
PATIENCE, AT_LEAST = 300.0, 30.0
"""Lab seconds until controllers have done what follows, and real seconds that a busy machine gets at least."""
BUDGET = ("policy/v1", "PodDisruptionBudget")
STAND_INS = ("Deployment", "StatefulSet")


async def resemble(lab: Environment, state: State) -> list[str]:
    """Set what differs, and wait until the controllers have followed; what could not be set, for people."""
    store: Store = lab.kubernetes.store
    if state["offered"]:
        lab.factory.versions = tuple(f"v{version.removeprefix('v')}" for version in state["offered"])
    notes = [*_machines(lab, state), *_other_vms(lab, state)]
    for name, node in state["nodes"].items():
        _node(store, name, node)
    _budgets(store, state)
    notes += [*_stand_ins(store, state), *_homes(store, state), *_volumes(store, state)]
    notes += await _followed(lab, state)
    return [*notes, *_places(store, state)]


def _machines(lab: Environment, state: State) -> list[str]:
    """The VMs of the nodes, what they run, and their members of etcd."""
    for server in lab.proxmox.values():
        for vmid, vm in list(server.inventory.vms.items()):
            if (wanted := state["nodes"].get(vm.name)) is None:
                continue
            machine = lab.machines.nodes.get(vm.uuid)
            if machine and wanted["talos"]:
                machine.replace_image(wanted["talos"], wanted["schematic"])
            etcd = machine.disk.etcd if machine else None
            if etcd and (member := etcd.members.get(vm.uuid)):
                if wanted["member"]:
                    etcd.members[vm.uuid] = replace(member, id=int(wanted["member"], 16))
                else:
                    etcd.leave(vm.uuid)
            if etcd and wanted["leads"]:
                etcd.leader = vm.uuid
            vm.config |= wanted["options"]
            if wanted["vm"] != "running":
                server.remove_vm(vmid) if wanted["vm"] == "absent" else server.stop_vm(vmid)
    return []


def _other_vms(lab: Environment, state: State) -> list[str]:
    notes = []
    for vm in state["vms"]:
        server = next((each for each in lab.proxmox.values() if vm["host"] in each.inventory.hosts), None)
        if server is None or vm["vmid"] in server.inventory.vms:
            why = "its host is not in the params" if server is None else "the lab has a VM of that number"
            notes.append(f"VM {vm['vmid']} ({vm['name']}) on {vm['host']}: {why}")
        else:
            server.add_vm(vm["vmid"], vm["name"], vm["host"], config=vm["options"], running=vm["running"])
    return notes


def _node(store: Store, name: str, wanted: Mapping[str, Any]) -> None:
    """A Node's versions and whether it is cordoned; or none, where the platform has none."""
    node = store.find("v1", "Node", name)
    if node is None:
        return
    if not wanted["registered"]:
        store.delete("v1", "Node", name)
        return
    annotations = {"fluobook/cordoned-by": wanted["cordoned_by"] or None}
    annotations |= {"fluobook/cold-boot": wanted["cold_boot"] or None}
    body = {"metadata": {"annotations": annotations}, "spec": {"unschedulable": wanted["cordoned"] or None}}
    node = store.patch("v1", "Node", name, body=body)
    info = {"kubeletVersion": wanted["kubelet"]} if wanted["kubelet"] else {}
    info |= {"osImage": f"Talos ({wanted['talos']})"} if wanted["talos"] else {}
    store.set_status(node, {**node["status"], "nodeInfo": {**node["status"]["nodeInfo"], **info}})


def _budgets(store: Store, state: State) -> None:
    wanted = {(budget["namespace"], budget["name"]): budget["spec"] for budget in state["budgets"]}
    present = {(namespace_of(budget), name_of(budget)): budget for budget in store.list(*BUDGET)}
    for (namespace, name), spec in wanted.items():
        head = {"apiVersion": BUDGET[0], "kind": BUDGET[1], "metadata": {"name": name, "namespace": namespace}}
        if (budget := present.get((namespace, name))) is None:
            _namespace(store, namespace)
            store.create({**head, "spec": spec})
        elif budget["spec"] != spec:
            store.update({**budget, "spec": spec})
    for namespace, name in present.keys() - wanted.keys():
        store.delete(*BUDGET, name, namespace)


def _namespace(store: Store, name: str) -> None:
    if store.find("v1", "Namespace", name) is None:
        store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def _stand_ins(store: Store, state: State) -> list[str]:
    """Workloads for those that the lab's tree does not have."""
    notes, present = [], _pods(store)
    for group in state["pods"]:
        kind, namespace, name = group["kind"], group["namespace"], group["name"]
        if (namespace, kind, name) in present or store.find("apps/v1", kind, name, namespace):
            continue
        if kind not in STAND_INS:
            notes.append(f"the pods of {kind} {namespace}/{name}: the lab has none, and no stand-in for the kind")
            continue
        _namespace(store, namespace)
        labels = group["labels"] or {"app.kubernetes.io/name": name}
        security = {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}}
        own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        container = {"name": "stand-in", "image": "registry.k8s.io/pause:3.10", "securityContext": own}
        pod = {"securityContext": security, "terminationGracePeriodSeconds": group["grace"], "containers": [container]}
        spec = {"replicas": len(group["nodes"]), "selector": {"matchLabels": labels}}
        spec |= {"template": {"metadata": {"labels": labels}, "spec": pod}}
        spec |= {"serviceName": name} if kind == "StatefulSet" else {}
        head = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}}
        store.create({**head, "spec": spec})
    return notes


def _pods(store: Store) -> dict[tuple[str, str, str], list[Obj]]:
    """Pods by namespace, kind and name of their workload; of a StatefulSet also those that a lost node never ends."""
    by_workload: dict[tuple[str, str, str], list[Obj]] = defaultdict(list)
    for pod in sorted(store.list("v1", "Pod"), key=name_of):
        kind, name = workload_of(pod)
        waits = kind == "StatefulSet" and _is_lost(store, pod["spec"].get("nodeName", ""))
        if not pod["metadata"].get("deletionTimestamp") or waits:
            by_workload[namespace_of(pod), kind, name].append(pod)
    return by_workload


def _is_lost(store: Store, name: str) -> bool:
    node = store.find("v1", "Node", name)
    return node is None or not is_true(node, "Ready")


def _places(store: Store, state: State) -> list[str]:
    """Move the pods to the nodes on which those of the platform run."""
    notes, present = [], _pods(store)
    for group in state["pods"]:
        pods, nodes = present.get((group["namespace"], group["kind"], group["name"]), []), dict(group["nodes"])
        if pods and len(pods) != len(nodes):
            title = f"{group['kind']} {group['namespace']}/{group['name']}"
            notes.append(f"the pods of {title}: {len(nodes)} on the platform, {len(pods)} in the lab")
        named = {name_of(pod): nodes.pop(name_of(pod)) for pod in pods if name_of(pod) in nodes}
        left = Counter(nodes.values())
        for pod in (pod for pod in pods if name_of(pod) not in named and left[pod["spec"].get("nodeName", "")]):
            named[name_of(pod)] = pod["spec"]["nodeName"]
            left[pod["spec"]["nodeName"]] -= 1
        rest = iter(left.elements())
        for pod in pods:
            node = named.get(name_of(pod)) or next(rest, "")
            if node and node != pod["spec"].get("nodeName"):
                # No API moves a pod, so its record is written.
                moved = {**pod, "spec": {**pod["spec"], "nodeName": node}, "metadata": dict(pod["metadata"])}
                store.storage.put(("", "pods"), (namespace_of(pod), name_of(pod)), moved)
    return notes


def _homes(store: Store, state: State) -> list[str]:
    """Longhorn's entries of nodes: whether they take replicas, or have theirs moved, and the space that is left."""
    if store.registry.find(API, "Node") is None:
        return []
    present, wanted = set(map(name_of, store.list(API, "Node", NAMESPACE))), state["homes"]
    notes = [f"Longhorn's node {name}: the lab has none" for name in wanted.keys() - present]
    for name in present - wanted.keys():
        if store.find("v1", "Node", name):
            notes.append(f"Longhorn's node {name}: the platform has none")
        else:
            store.storage.remove(HOMES, (NAMESPACE, name))  # its webhook would have it closed first, and empty
    volumes, promised = store.list(API, "Volume", NAMESPACE), Counter[str]()
    claims = {_claim(volume): name_of(volume) for volume in store.list("v1", "PersistentVolume")}
    sizes = {name_of(volume): int(volume["spec"].get("size", 0)) for volume in volumes}
    for volume in state["volumes"]:
        for node, _ in volume["replicas"]:
            promised[node] += sizes.get(claims.get(volume["claim"], ""), 0)
    for name in present & wanted.keys():
        home = wanted[name]
        disk = {"storageReserved": max(DISK_BYTES - promised[name] - home["free"], 0)}
        spec = {"allowScheduling": home["open"], "evictionRequested": home["evicts"], "disks": {DISK: disk}}
        annotations = {"fluobook/cordoned-by": home["closed_by"] or None}
        store.patch(API, "Node", name, NAMESPACE, body={"metadata": {"annotations": annotations}, "spec": spec})
    return notes


def _volumes(store: Store, state: State) -> list[str]:
    """The replicas of volumes: on which nodes, and which have failed."""
    notes, claims = list[str](), {_claim(volume): name_of(volume) for volume in store.list("v1", "PersistentVolume")}
    for volume in state["volumes"]:
        name = claims.get(volume["claim"], "")
        made = store.find(API, "Volume", name, NAMESPACE)
        if made is None:
            notes.append(f"the volume of {volume['claim']}: the lab has no such claim")
            continue
        body = {"spec": {"numberOfReplicas": volume["wanted"]}}
        store.patch(API, "Volume", name, NAMESPACE, body=body)
        for replica in store.list(API, "Replica", NAMESPACE):
            if replica["spec"]["volumeName"] == name:
                store.delete(API, "Replica", name_of(replica), NAMESPACE)
        for number, (node, healthy) in enumerate(volume["replicas"]):
            labels = {"longhornvolume": name}
            metadata = {"name": f"{name}-r-{number}", "namespace": NAMESPACE, "labels": labels}
            spec = {"volumeName": name, "nodeID": node, "dataEngine": "v1"}
            spec |= {} if healthy else {"failedAt": timestamp()}
            store.create({"apiVersion": API, "kind": "Replica", "metadata": metadata, "spec": spec})
    return notes


def _claim(volume: Obj) -> str:
    reference = volume["spec"].get("claimRef") or {}
    return f"{reference.get('namespace', '')}/{reference.get('name', '')}"


async def _followed(lab: Environment, state: State) -> list[str]:
    """Wait for the controllers; what they have not done."""
    store: Store = lab.kubernetes.store

    lost = partial(_is_lost, store)

    def running(group: Mapping[str, Any]) -> bool:
        pods = _pods(store).get((group["namespace"], group["kind"], group["name"]), [])
        ready = sum(is_true(pod, "Ready") or lost(pod["spec"].get("nodeName", "")) for pod in pods)
        return ready >= int(group["ready"])

    def same(volume: Mapping[str, Any]) -> bool:
        claims = {_claim(each): name_of(each) for each in store.list("v1", "PersistentVolume")}
        made = store.find(API, "Volume", claims.get(volume["claim"], ""), NAMESPACE)
        return made is None or (made.get("status") or {}).get("robustness") == volume["robustness"]

    waits: list[tuple[str, Callable[[Any], bool], Any]] = []
    waits += [(f"node {name}", lost, name) for name, node in state["nodes"].items() if node["vm"] != "running"]
    waits += [(f"the pods of {g['name']}", running, g) for g in state["pods"] if g["kind"] in STAND_INS]
    waits += [(f"the volume of {volume['claim']}", same, volume) for volume in state["volumes"]]
    patience, notes = max(PATIENCE, AT_LEAST * lab.clock.speed), []
    until = lab.clock.now() + patience
    for title, done, about in waits:
        while not done(about) and lab.clock.now() < until:
            await lab.clock.sleep(POLL)
        notes += [] if done(about) else [f"{title}: not as on the platform after {patience:.0f} s"]
    return notes
