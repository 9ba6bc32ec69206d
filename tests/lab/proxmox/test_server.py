"""The lab's Proxmox VE with a client that is not ours: plain proxmoxer, as an administrator's script has it."""

import socket
import time
from collections.abc import Callable

import pytest
import requests
from fluobook_lab.proxmox import Host, Token
from fluobook_lab.proxmox.api import ROUTES
from proxmoxer import ProxmoxAPI
from proxmoxer.core import ResourceException

pytestmark = pytest.mark.lab

SECRET = "6f1c3a52-aaaa-bbbb-cccc-0123456789ab"


@pytest.fixture
def plain(proxmox, ca_file, monkeypatch):
    """A rig, and proxmoxer as anybody uses it; the certificate is for the name pve1.lab, which leads to loopback."""

    def make(*faults, **options):
        rig = proxmox(*faults, **options)
        real = socket.getaddrinfo

        def resolve(host, *rest, **more):
            return real("127.0.0.1" if host == "pve1.lab" else host, *rest, **more)

        monkeypatch.setattr("socket.getaddrinfo", resolve)
        api = ProxmoxAPI(
            "pve1.lab",
            port=rig.lab.port,
            user="fluobook@pve",
            token_name="fluobook",
            token_value=SECRET,
            verify_ssl=str(ca_file),
        )
        return rig, api

    return make


def settle(api: ProxmoxAPI, upid: str) -> str:
    """The exit status of a task."""
    task = api.nodes(upid.split(":")[1]).tasks(upid)
    return until(lambda: task.status.get().get("exitstatus"))


def until(look: Callable[[], str | None]) -> str:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    raise TimeoutError("it did not happen within 10 s")


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


def test_a_vm_gets_what_proxmox_ve_makes_up_for_it(plain):
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
    for header, said in (
        ("Bearer x", "No ticket"),
        ("PVEAPIToken=fluobook@pve!fluobook=wrong", "Authentication failed!"),
    ):
        answer = requests.get(url, headers={"Authorization": header}, verify=str(ca_file), timeout=5)
        assert (answer.status_code, answer.reason) == (401, said)
    assert [seen.status for seen in rig.lab.requests] == [401, 401]


def test_an_unknown_path_is_not_implemented(plain):
    _, api = plain()
    with pytest.raises(ResourceException) as refused:
        api.nodes("pve1").lxc.get()
    assert refused.value.status_code == 501


def test_each_request_is_remembered_and_only_what_can_change_something_is_mutating(plain):
    rig, api = plain()
    api.version.get()
    settle(api, api.nodes("pve1").qemu.post(vmid=100))
    api.nodes("pve1").qemu(100).config.put(cores=2)
    changing = [(seen.method, seen.path) for seen in rig.lab.requests if seen.mutating]
    assert changing == [("POST", "/api2/json/nodes/pve1/qemu"), ("PUT", "/api2/json/nodes/pve1/qemu/100/config")]
    assert {seen.status for seen in rig.lab.requests} == {200}
    assert all(seen.user_agent.startswith("python-requests") for seen in rig.lab.requests)


def test_a_change_can_be_made_by_a_worker(plain):
    _, api = plain()
    settle(api, api.nodes("pve1").qemu.post(vmid=100))
    assert settle(api, api.nodes("pve1").qemu(100).config.post(scsi1="local-lvm:80", delete="boot")) == "OK"
    config = api.nodes("pve1").qemu(100).config.get()
    assert config["scsi1"] == "local-lvm:vm-100-disk-0,size=80G"
    assert "boot" not in config


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


def test_a_guest_agent_answers_when_the_machine_runs_it(plain):
    interfaces = [{"name": "eth0", "ip-addresses": [{"ip-address": "10.10.0.10"}]}]
    running: dict[str, list] = {}
    rig, api = plain(guest_agent=running.get)
    settle(api, api.nodes("pve1").qemu.post(vmid=100))
    agent = api.nodes("pve1").qemu(100).agent("network-get-interfaces")
    assert refusal(agent.get) == "No QEMU guest agent configured"
    api.nodes("pve1").qemu(100).config.put(agent="enabled=1")
    assert refusal(agent.get) == "VM 100 is not running"
    settle(api, api.nodes("pve1").qemu(100).status.start.post())
    assert refusal(agent.get) == "QEMU guest agent is not running"
    running[rig.plugs.on[0].uuid] = interfaces
    assert agent.get() == {"result": interfaces}


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ResourceException) as refused:
        call()
    return refused.value.content


def test_a_guest_that_switches_itself_off_is_stopped_without_pulling_the_plug(plain):
    rig, api = plain()
    settle(api, api.nodes("pve1").qemu.post(vmid=100, memory=1024))
    settle(api, api.nodes("pve1").qemu(100).status.start.post())
    api.nodes("pve1").qemu(100).config.put(memory=2048)
    rig.background.call(rig.lab.guest_stopped, rig.plugs.on[0].uuid)
    assert api.nodes("pve1").qemu(100).status.current.get()["status"] == "stopped"
    assert api.nodes("pve1").qemu(100).config.get(current=1)["memory"] == "2048"
    assert rig.plugs.off == []


def test_a_reset_boots_again_with_the_configuration_it_had(plain):
    rig, api = plain()
    settle(api, api.nodes("pve1").qemu.post(vmid=100, memory=1024))
    settle(api, api.nodes("pve1").qemu(100).status.start.post())
    api.nodes("pve1").qemu(100).config.put(memory=2048)
    assert settle(api, api.nodes("pve1").qemu(100).status.reset.post()) == "OK"
    assert [boot.memory_mib for boot in rig.plugs.on] == [1024, 1024]
    assert len(rig.plugs.off) == 1


def test_resources_lag_behind_when_the_fault_says_so_but_locks_and_tags_do_not(plain):
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
def test_somebody_elses_vm_can_be_in_the_way(plain, fault, vmid, name):
    planned = ((100, "talos-cp-1", "pve1"), (101, "talos-worker-1", "pve1"))
    _, api = plain(fault, planned=planned)
    [vm] = api.cluster.resources.get(type="vm")
    assert (vm["vmid"], vm["name"], vm["status"]) == (vmid, name, "running")


def test_only_ones_own_tasks_are_seen_without_the_right_to_audit(plain):
    grants = {"/": ("VM.Allocate", "VM.Audit")}
    others = Token("root@pam!other", "other-secret-of-the-lab", grants)
    rig, api = plain(tokens=(Token("fluobook@pve!fluobook", SECRET, grants), others))
    mine = api.nodes("pve1").qemu.post(vmid=100)
    theirs = rig.another(token_id=others.id, token_secret=others.secret).create_vm("pve1", vmid=101)
    assert [task["upid"] for task in api.cluster.tasks.get()] == [mine]
    assert "Sys.Audit" in refusal(api.nodes("pve1").tasks(str(theirs)).status.get)


def test_slow_answers_and_wrong_tokens_are_faults_that_last(plain):
    rig, api = plain("proxmox.token-wrong", "proxmox.api-slow")
    for _ in range(2):
        assert refusal(api.version.get) == "Authentication failed!"
    assert rig.lab.requests[-1].time >= 2


def test_every_host_of_a_cluster_answers_for_itself(plain):
    _, api = plain(hosts=(Host("pve1"), Host("pve2", bridges=("vmbr7",))))
    assert [net["iface"] for net in api.nodes("pve2").network.get()] == ["eno1", "vmbr7"]
    settle(api, api.nodes("pve2").qemu.post(vmid=100))
    assert "does not exist" in refusal(api.nodes("pve1").qemu(100).config.get)
    assert "already exists on node 'pve2'" in refusal(lambda: api.nodes("pve1").qemu.post(vmid=100))


def test_the_same_seed_makes_the_same_identities(plain):
    made = []
    for _ in range(2):
        _, api = plain()
        settle(api, api.nodes("pve1").qemu.post(vmid=100, net0="virtio,bridge=vmbr0"))
        config = api.nodes("pve1").qemu(100).config.get()
        made.append((config["smbios1"], config["net0"], config["vmgenid"]))
    assert made[0] == made[1]


def test_a_worker_that_dies_of_a_fault_of_the_lab_ends_its_task(plain):
    rig, api = plain()
    rig.plugs.power_on = None
    settle(api, api.nodes("pve1").qemu.post(vmid=100))
    assert "worker died" in settle(api, api.nodes("pve1").qemu(100).status.start.post())


def test_no_route_is_there_twice():
    assert len({(method, path) for method, path, _ in ROUTES}) == len(ROUTES)
