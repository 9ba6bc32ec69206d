"""The lab's Proxmox VE against plain proxmoxer, as in an administrator's script."""

import time
from collections.abc import Callable

import pytest
import requests
from fluobook_lab.proxmox import Host, Token
from fluobook_lab.proxmox.server import ROUTES
from proxmoxer import ProxmoxAPI
from proxmoxer.core import ResourceException

from tests.conftest import SECRET

pytestmark = pytest.mark.lab


def settle(api: ProxmoxAPI, upid: str) -> str:
    """The exit status of a task."""
    task = api.nodes(upid.split(":")[1]).tasks(upid)
    return until(lambda: task.status.get().get("exitstatus"))


def until(value: Callable[[], str | None]) -> str:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if result := value():
            return result
        time.sleep(0.02)
    raise TimeoutError("timed out after 10 s")


def test_proxmoxer_creates_starts_and_destroys_a_vm(plain):
    rig, api = plain()
    assert api.version.get()["version"] == "9.0.10"
    assert settle(api, api.nodes("pve1").qemu.post(vmid=100, name="a", scsi0="local-lvm:8", memory=1024)) == "OK"
    assert settle(api, api.nodes("pve1").qemu(100).status.start.post()) == "OK"
    assert [vm["name"] for vm in api.cluster.resources.get(type="vm")] == ["a"]
    assert api.nodes("pve1").qemu.get()[0]["status"] == "running"
    assert settle(api, api.nodes("pve1").qemu(100).status.stop.post()) == "OK"
    assert settle(api, api.nodes("pve1").qemu(100).delete(purge=1)) == "OK"
    assert api.cluster.resources.get(type="vm") == []
    assert rig.plugs.off == [rig.plugs.on[0].uuid]
    assert rig.plugs.forgotten == rig.plugs.off


def test_a_new_vm_gets_generated_options(plain):
    _, api = plain()
    assert settle(api, api.nodes("pve1").qemu.post(vmid=100, net0="virtio,bridge=vmbr0", scsi0="local-lvm:8")) == "OK"
    config = api.nodes("pve1").qemu(100).config.get()
    assert config["smbios1"].startswith("uuid=")
    assert config["net0"].startswith("virtio=BC:24:11:")
    assert config["boot"] == "order=scsi0;net0"
    assert {"vmgenid", "meta", "digest"} <= config.keys()
    assert api.nodes("pve1").qemu(100).status.current.get()["name"] == "VM 100"


def test_a_refusal_has_the_reason_in_the_status_line_and_the_parameters_in_the_body(plain):
    _, api = plain()
    with pytest.raises(ResourceException) as refused:
        api.nodes("pve1").qemu.post(vmid=100, memory="x", nonsense=1)
    assert (refused.value.status_code, refused.value.content) == (400, "Parameter verification failed.")
    assert set(refused.value.errors) == {"memory", "nonsense"}
    with pytest.raises(ResourceException) as taken:
        api.nodes("pve1").qemu(999).config.get()
    assert taken.value.content == "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist"


def test_a_login_without_a_token_is_refused(plain, ca_file):
    rig, _ = plain()
    url = f"https://pve1.lab:{rig.lab.port}/api2/json/version"
    for header, reason in (
        ("Bearer x", "No ticket"),
        ("PVEAPIToken=fluobook@pve!fluobook=wrong", "Authentication failed!"),
    ):
        answer = requests.get(url, headers={"Authorization": header}, verify=str(ca_file), timeout=5)
        assert (answer.status_code, answer.reason) == (401, reason)
    assert [request.status for request in rig.lab.requests] == [401, 401]


def test_an_unknown_path_is_not_implemented(plain):
    _, api = plain()
    with pytest.raises(ResourceException) as refused:
        api.nodes("pve1").lxc.get()
    assert refused.value.status_code == 501


def test_each_request_is_logged_and_marked_as_mutating_or_not(plain):
    rig, api = plain()
    api.version.get()
    settle(api, api.nodes("pve1").qemu.post(vmid=100))
    api.nodes("pve1").qemu(100).config.put(cores=2)
    changing = [(request.method, request.path) for request in rig.lab.requests if request.mutating]
    assert changing == [("POST", "/api2/json/nodes/pve1/qemu"), ("PUT", "/api2/json/nodes/pve1/qemu/100/config")]
    assert {request.status for request in rig.lab.requests} == {200}
    assert all(request.user_agent.startswith("python-requests") for request in rig.lab.requests)


def test_an_update_adds_and_deletes_options(plain):
    _, api = plain()
    settle(api, api.nodes("pve1").qemu.post(vmid=100))
    api.nodes("pve1").qemu(100).config.put(scsi1="local-lvm:80", delete="boot")
    config = api.nodes("pve1").qemu(100).config.get()
    assert config["scsi1"] == "local-lvm:vm-100-disk-0,size=80G"
    assert "boot" not in config


def test_a_detached_disk_is_unused_until_it_is_deleted_itself(plain):
    _, api = plain()
    vm = api.nodes("pve1").qemu(100)
    settle(
        api, api.nodes("pve1").qemu.post(vmid=100, scsi0="local-lvm:8", scsi1="local-lvm:9", ide0="none,media=cdrom")
    )
    vm.config.put(delete="scsi1,ide0", scsi0="local-lvm:10")
    config = vm.config.get()
    assert config["scsi0"] == "local-lvm:vm-100-disk-2,size=10G"
    assert sorted([config["unused0"], config["unused1"]]) == ["local-lvm:vm-100-disk-0", "local-lvm:vm-100-disk-1"]
    assert {"scsi1", "ide0", "unused2"}.isdisjoint(config)
    vm.config.put(delete="unused0,unused1")
    assert [volume["volid"] for volume in api.nodes("pve1").storage("local-lvm").content.get(vmid=100)] == [
        "local-lvm:vm-100-disk-2"
    ]
    settle(api, vm.delete())
    assert api.nodes("pve1").storage("local-lvm").content.get() == []


def test_a_vm_on_a_bridge_that_the_host_does_not_have_cannot_be_started(plain):
    _, api = plain()
    settle(api, api.nodes("pve1").qemu.post(vmid=100, net0="virtio,bridge=vmbr9"))
    upid = api.nodes("pve1").qemu(100).status.start.post()
    assert settle(api, upid) == "start failed: QEMU exited with code 1"
    assert "bridge 'vmbr9' does not exist" in [line["t"] for line in api.nodes("pve1").tasks(upid).log.get()]


def test_a_vm_with_more_cores_than_its_host_cannot_be_started(plain):
    _, api = plain()
    settle(api, api.nodes("pve1").qemu.post(vmid=100, cores=4, sockets=5))
    assert settle(api, api.nodes("pve1").qemu(100).status.start.post()) == "MAX 16 vcpus allowed per VM on this node"


def test_a_disk_is_imported_from_an_image_and_then_grown(plain):
    url = "https://factory.talos.dev/nocloud-amd64.qcow2"
    _, api = plain(images={url: 3 * 1024**3}.get)
    host = api.nodes("pve1")
    assert (
        settle(api, host.storage("local")("download-url").post(url=url, filename="t.qcow2", content="import")) == "OK"
    )
    assert settle(api, host.qemu.post(vmid=100, scsi0="local-lvm:0,import-from=local:import/t.qcow2")) == "OK"
    assert host.qemu(100).config.get()["scsi0"] == "local-lvm:vm-100-disk-0,size=3G"
    assert settle(api, host.qemu(100).resize.put(disk="scsi0", size="+7G")) == "OK"
    assert host.qemu(100).config.get()["scsi0"] == "local-lvm:vm-100-disk-0,size=10G"


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ResourceException) as refused:
        call()
    return refused.value.content


def test_a_vm_whose_guest_powers_off_is_stopped(plain):
    rig, api = plain()
    settle(api, api.nodes("pve1").qemu.post(vmid=100, memory=1024))
    settle(api, api.nodes("pve1").qemu(100).status.start.post())
    api.nodes("pve1").qemu(100).config.put(memory=2048)
    rig.background.call(rig.lab.guest_stopped, rig.plugs.on[0].uuid)
    assert api.nodes("pve1").qemu(100).status.current.get()["status"] == "stopped"
    assert api.nodes("pve1").qemu(100).config.get(current=1)["memory"] == "2048"
    assert rig.plugs.off == []


def test_with_stale_resources_locks_and_tags_are_current(plain):
    rig, api = plain("proxmox.resources-stale", speed=0.01)
    rig.background.call(rig.lab.add_vm, 100, "db", "pve1", config={"tags": "a", "lock": "backup"}, running=True)
    [vm] = api.cluster.resources.get(type="vm")
    assert vm["status"] == "unknown"
    assert "name" not in vm
    assert (vm["tags"], vm["lock"]) == ("a", "backup")
    assert api.nodes("pve1").qemu(100).status.current.get()["status"] == "running"


@pytest.mark.parametrize(
    ("fault", "vmid", "name"),
    [("proxmox.foreign-vmid", 100, "prod-db"), ("proxmox.foreign-vm-with-our-name", 1101, "talos-cp-1")],
)
def test_a_foreign_vm_can_have_our_id_or_name(plain, fault, vmid, name):
    planned = ((100, "talos-cp-1", "pve1"), (101, "talos-worker-1", "pve1"))
    _, api = plain(fault, planned=planned)
    [vm] = api.cluster.resources.get(type="vm")
    assert (vm["vmid"], vm["name"], vm["status"]) == (vmid, name, "running")


def test_without_sys_audit_a_token_sees_only_its_own_tasks(plain):
    grants = {"/": ("VM.Allocate", "VM.Audit")}
    others = Token("root@pam!other", "other-secret-of-the-lab", grants)
    rig, api = plain(tokens=(Token("fluobook@pve!fluobook", SECRET, grants), others))
    mine = api.nodes("pve1").qemu.post(vmid=100)
    theirs = rig.another(token_id=others.id, token_secret=others.secret).create_vm("pve1", vmid=101)
    assert [task["upid"] for task in api.cluster.tasks.get()] == [mine]
    assert "Sys.Audit" in refusal(api.nodes("pve1").tasks(str(theirs)).status.get)


def test_slow_answers_and_wrong_tokens_are_lasting_faults(plain):
    rig, api = plain("proxmox.token-wrong", "proxmox.api-slow")
    for _ in range(2):
        assert refusal(api.version.get) == "Authentication failed!"
    assert rig.lab.requests[-1].time >= 2


def test_each_host_of_a_cluster_has_its_own_vms_and_bridges(plain):
    _, api = plain(hosts=(Host("pve1"), Host("pve2", bridges=("vmbr7",))))
    assert [net["iface"] for net in api.nodes("pve2").network.get()] == ["eno1", "vmbr7"]
    settle(api, api.nodes("pve2").qemu.post(vmid=100))
    assert "does not exist" in refusal(api.nodes("pve1").qemu(100).config.get)
    assert "already exists on node 'pve2'" in refusal(lambda: api.nodes("pve1").qemu.post(vmid=100))


def test_the_same_seed_gives_the_same_identities(plain):
    made = []
    for _ in range(2):
        _, api = plain()
        settle(api, api.nodes("pve1").qemu.post(vmid=100, net0="virtio,bridge=vmbr0"))
        config = api.nodes("pve1").qemu(100).config.get()
        made.append((config["smbios1"], config["net0"], config["vmgenid"]))
    assert made[0] == made[1]


def test_an_exception_in_a_worker_ends_its_task(plain):
    rig, api = plain()
    rig.plugs.power_on = None
    settle(api, api.nodes("pve1").qemu.post(vmid=100))
    assert "worker died" in settle(api, api.nodes("pve1").qemu(100).status.start.post())


def test_routes_are_unique():
    assert len({(method, path) for method, path, _ in ROUTES}) == len(ROUTES)
