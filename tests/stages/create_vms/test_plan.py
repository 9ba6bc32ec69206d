"""What stage 1 plans, as a table of what Proxmox VE holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluobook import params
from fluobook.clients.proxmox import TaskStatus, Upid
from fluobook.errors import ForeignObject, Locked, Refused
from fluobook.machine.schematic import Image
from fluobook.stages.create_vms.plan import Observation, ObservedVM, plan
from fluobook.stages.create_vms.settings import create_params, disks, uuid_of

ROOT = Path(__file__).parents[3]
PLATFORM = params.load("phase1", root=ROOT).platform
CONTROL_PLANE, WORKER = PLATFORM.nodes[0], PLATFORM.nodes[1]
IMAGE = Image("1.13.9", "0" * 64)
HOSTS = frozenset(PLATFORM.hosts)


def vm(node=CONTROL_PLANE, *, status="running", resource=(), **config):
    """The VM that stage 1 would have created for a node."""
    created = create_params(PLATFORM, node, IMAGE.filename)
    sized = {disk: f"{created[disk]},size={size}G" for disk, size in disks(node).items()}
    line = {"vmid": node.vmid, "name": node.name, "node": node.host, "status": status, "type": "qemu"}
    line |= {"maxcpu": node.cores, "maxmem": node.memory_gib * 2**30, **dict(resource)}
    return ObservedVM(line, {**created, **sized, **config})


def task(kind, subject, *, user="root@pam"):
    upid = Upid.parse(f"UPID:{CONTROL_PLANE.host}:00001234:00005678:66000000:{kind}:{subject}:{user}:")
    return TaskStatus(upid)


def observed(*vms, images=HOSTS, **rest):
    by_node = {node.name: [] for node in PLATFORM.nodes}
    for candidate in vms:
        for node in PLATFORM.nodes:
            if candidate.vmid == node.vmid or uuid_of(candidate.config) == node.uuid:
                by_node[node.name].append(candidate)
    return Observation(IMAGE, images, by_node, **rest)


ALL = tuple(vm(node) for node in PLATFORM.nodes)
OTHERS = ALL[1:]


def actions(observation):
    return {action.id: (action.verb, action.needs) for action in plan(PLATFORM, observation).actions}


def test_on_empty_hosts_each_image_is_downloaded_and_each_vm_created_and_started():
    expected = {f"image {host}": ("download", ()) for host in PLATFORM.hosts}
    for node in PLATFORM.nodes:
        expected[f"create {node.name}"] = ("create", (f"image {node.host}",))
        expected[f"start {node.name}"] = ("start", (f"create {node.name}",))
    assert actions(observed(images=frozenset())) == expected


def test_nothing_is_planned_when_every_vm_is_up_to_date():
    planned = plan(PLATFORM, observed(*ALL))
    assert (planned.actions, planned.kept) == ((), len(PLATFORM.nodes) + len(PLATFORM.hosts))


NAME = CONTROL_PLANE.name
CHANGE = f"change {NAME}"


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (vm(status="stopped"), {f"start {NAME}": ("start", ())}),
        (vm(status="stopped", cores=1), {CHANGE: ("change", ()), f"start {NAME}": ("start", (CHANGE,))}),
        (vm(memory=1024), {CHANGE: ("change", ())}),
        (vm(net0="virtio=02:00:00:00:00:01,bridge=vmbr9"), {CHANGE: ("change", ())}),
        (vm(scsi0="local-lvm:vm-1-disk-0,size=1G"), {CHANGE: ("change", ())}),
        (vm(tags=f"fluobook;fluobook-{PLATFORM.cluster.name};backup"), {}),
        (vm(resource={"maxcpu": 1}), {CHANGE: ("change", ())}),
        (vm(description="a note of the administrator"), {}),
    ],
    ids=[
        "a stopped VM is started",
        "a stopped VM is changed, then started",
        "memory",
        "network card",
        "a disk that is too small grows",
        "further tags stay",
        "a change that has not reached the running VM",
        "fields that are not owned stay",
    ],
)
def test_a_vm_of_ours_is_changed_in_owned_fields_only(machine, expected):
    assert actions(observed(machine, *OTHERS)) == expected


def test_power_cycles_wait_for_each_other():
    planned = actions(observed(*(vm(node, cores=64) for node in PLATFORM.nodes)))
    names = [f"change {node.name}" for node in PLATFORM.nodes]
    assert [planned[name][1] for name in names] == [(), *((name,) for name in names[:-1])]


@pytest.mark.parametrize(
    ("observation", "error", "message"),
    [
        (observed(vm(smbios1="uuid=" + "0" * 8 + "-0000-4000-8000-" + "0" * 12)), ForeignObject, "has the number"),
        (observed(vm(tags="")), ForeignObject, "is not managed by fluobook"),
        (observed(answering=frozenset({CONTROL_PLANE.address})), ForeignObject, "something answers at"),
        (observed(vm(resource={"node": "elsewhere"})), Refused, "and the params say"),
        (observed(vm(scsi0="local-lvm:vm-1-disk-0,size=9000G")), Refused, "would shrink a disk"),
        (
            observed(vm(cores=1), tasks=[task("qmstart", CONTROL_PLANE.vmid, user="somebody@pve")]),
            Locked,
            "somebody@pve is changing",
        ),
    ],
    ids=["number taken", "no tag", "address taken", "moved", "smaller disk", "another operator"],
)
def test_what_is_in_the_way_stops_the_plan(observation, error, message):
    with pytest.raises(error, match=message):
        plan(PLATFORM, observation)


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        (observed(tasks=[task("qmcreate", CONTROL_PLANE.vmid)]), "its creation is running"),
        (observed(), f"not on {CONTROL_PLANE.host}"),
    ],
)
def test_a_creation_that_is_running_is_named(observation, reason):
    if observation.tasks:
        own = PLATFORM.endpoint_of(CONTROL_PLANE).token_id
        observation = observed(tasks=[task("qmcreate", CONTROL_PLANE.vmid, user=own)])
    creation = next(a for a in plan(PLATFORM, observation).actions if a.verb == "create")
    assert creation.reason == reason


def test_vms_of_nodes_that_left_the_params_are_named_and_left_alone():
    stray = ObservedVM({"vmid": 990, "name": "talos-worker-9", "node": "pve1"}, {"tags": "fluobook"})
    planned = plan(PLATFORM, observed(*ALL, strays=[stray]))
    assert planned.actions == ()
    assert "talos-worker-9" in planned.notes[0]
    assert planned.notes[0].startswith("left alone")
