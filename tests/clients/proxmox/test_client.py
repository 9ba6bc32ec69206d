import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fluobook_lab.proxmox import Host, Storage, Token

from fluobook.clients.proxmox import ProxmoxClient, TaskStatus, VmLocked
from fluobook.errors import (
    AccessDenied,
    Conflict,
    DeadlineExceeded,
    NotFound,
    OutsideError,
    Rejected,
    TaskFailed,
    Unreachable,
    UsageError,
)
from fluobook.failures import present
from fluobook.machine.pki import fingerprint

pytestmark = pytest.mark.lab

IMAGE_URL = "https://factory.talos.dev/image/376567/v1.13.9/nocloud-amd64.iso"
UUID = "6e1b0f3c-2a55-5b9c-8f55-0a7a0f2a1b3c"
WORKER = {
    "name": "talos-worker-1",
    "machine": "q35",
    "bios": "ovmf",
    "efidisk0": "local-lvm:1,efitype=4m,pre-enrolled-keys=0",
    "cpu": "x86-64-v2-AES",
    "sockets": 1,
    "cores": 4,
    "memory": 12288,
    "balloon": 0,
    "scsihw": "virtio-scsi-pci",
    "scsi0": "local-lvm:20,discard=on,ssd=1",
    "scsi1": "local-lvm:80,discard=on,ssd=1",
    "net0": "virtio=BC:24:11:00:01:20,bridge=vmbr0,firewall=0",
    "ide2": "local:iso/nocloud.iso,media=cdrom",
    "ide0": "local-lvm:cloudinit",
    "ipconfig0": "ip=10.10.0.20/24,gw=10.10.0.1",
    "nameserver": "10.10.0.1 1.1.1.1",
    "boot": "order=scsi0;ide2",
    "agent": "enabled=1",
    "serial0": "socket",
    "vga": "serial0",
    "ostype": "l26",
    "onboot": True,
    "tags": "worker;fluobook",
    "smbios1": f"uuid={UUID}",
}


def download(client: ProxmoxClient) -> TaskStatus:
    upid = client.download_url("pve1", "local", url=IMAGE_URL, filename="nocloud.iso")
    return client.wait(upid, deadline=10, name="image_download")


def create(client: ProxmoxClient, vmid: int = 110, **changes) -> TaskStatus:
    return client.wait(client.create_vm("pve1", vmid=vmid, **WORKER | changes), deadline=10, name="vm_create")


def bare(client: ProxmoxClient, vmid: int = 110, **params) -> None:
    client.wait(client.create_vm("pve1", vmid=vmid, name="bare", **params), deadline=10)


def test_a_vm_is_downloaded_for_created_and_started(proxmox):
    rig = proxmox()
    assert download(rig.client).ok
    assert [v["volid"] for v in rig.client.storage_content("pve1", "local", "iso")] == ["local:iso/nocloud.iso"]
    assert create(rig.client).ok
    rig.client.wait(rig.client.start("pve1", 110), deadline=10)
    boot = rig.plugs.on[0]
    assert (boot.vmid, boot.name, boot.uuid, boot.mac) == (110, "talos-worker-1", UUID, "BC:24:11:00:01:20")
    assert (boot.cores, boot.memory_mib, boot.image) == (4, 12288, "nocloud.iso")
    assert boot.disks == (("scsi0", 20), ("scsi1", 80))
    assert (boot.address, boot.gateway, boot.hostname) == ("10.10.0.20/24", "10.10.0.1", "talos-worker-1")
    assert boot.agent
    assert rig.client.vm_status("pve1", 110)["status"] == "running"
    [vm] = rig.client.resources("vm")
    assert (vm["vmid"], vm["status"], vm["node"], vm["tags"]) == (110, "running", "pve1", "fluobook;worker")


def test_the_configuration_is_read_back_in_the_form_of_proxmox_ve(proxmox):
    rig = proxmox()
    download(rig.client)
    create(rig.client)
    config = rig.client.config("pve1", 110)
    assert config["scsi0"] == "local-lvm:vm-110-disk-1,discard=on,size=20G,ssd=1"
    assert config["efidisk0"] == "local-lvm:vm-110-disk-0,efitype=4m,pre-enrolled-keys=0,size=4M"
    assert config["ide0"] == "local-lvm:vm-110-cloudinit,media=cdrom"
    assert config["net0"] == "virtio=BC:24:11:00:01:20,bridge=vmbr0,firewall=0"
    assert (config["tags"], config["memory"], config["cores"], config["onboot"]) == ("fluobook;worker", "12288", 4, 1)
    assert len(config["digest"]) == 40


def test_while_a_vm_is_being_created_it_has_neither_name_nor_uuid(proxmox):
    rig = proxmox(speed=0.001)
    upid = rig.client.create_vm("pve1", vmid=110, name="slow", smbios1=f"uuid={UUID}", tags="fluobook")
    assert set(rig.client.config("pve1", 110)) == {"lock", "digest"}
    assert rig.client.config("pve1", 110)["lock"] == "create"
    assert "tags" not in rig.client.resources("vm")[0]
    running = rig.client.task_of(110, "qmcreate")
    assert running is not None
    assert running.running
    assert running.upid == upid
    quick = proxmox()
    bare(quick.client, smbios1=f"uuid={UUID}")
    assert quick.client.config("pve1", 110)["smbios1"] == f"uuid={UUID}"


def test_creating_a_vm_with_a_taken_id_is_a_conflict(proxmox):
    rig = proxmox()
    bare(rig.client)
    with pytest.raises(Conflict, match="VM 110 already exists on node 'pve1'"):
        bare(rig.client)


@pytest.mark.parametrize("fault", ["proxmox.create-500-once", "proxmox.create-596-once", "proxmox.create-lost-once"])
def test_creating_is_never_repeated_by_the_client(proxmox, fault):
    rig = proxmox(fault)
    with pytest.raises(OutsideError):
        rig.client.create_vm("pve1", vmid=110, name="once")
    assert rig.paths("POST") == ["/nodes/pve1/qemu"]


@pytest.mark.parametrize("fault", ["proxmox.create-596-once", "proxmox.create-lost-once"])
def test_a_vm_whose_answer_was_lost_is_found_by_its_task(proxmox, fault):
    rig = proxmox(fault, speed=1)
    with pytest.raises(Unreachable):
        rig.client.create_vm("pve1", vmid=110, name="once")
    task = rig.client.task_of(110, "qmcreate")
    assert task is not None
    assert rig.client.wait(task.upid, deadline=10).ok
    assert rig.client.config("pve1", 110)["name"] == "once"


def test_nothing_is_left_of_a_create_that_was_refused(proxmox):
    rig = proxmox("proxmox.create-500-once")
    with pytest.raises(OutsideError, match="no worker upid"):
        rig.client.create_vm("pve1", vmid=110, name="once")
    assert rig.client.task_of(110, "qmcreate") is None
    assert 110 not in rig.lab.inventory.vms


def test_a_failed_task_brings_its_logs_tail(proxmox):
    rig = proxmox("proxmox.create-task-fails")
    with pytest.raises(TaskFailed, match="unable to create VM 110") as failed:
        bare(rig.client)
    assert "TASK ERROR: unable to create VM 110" in failed.value.detail
    assert failed.value.code.startswith("UPID:pve1:")
    assert present(failed.value).next == f"pvenode task log {failed.value.code}"
    assert 110 not in rig.lab.inventory.vms


@pytest.mark.parametrize("fault", ["proxmox.start-500-once", "proxmox.start-596-once", "proxmox.start-lost-once"])
def test_a_start_without_an_answer_ends_in_a_vm_that_was_started_once(proxmox, fault):
    rig = proxmox(fault)
    bare(rig.client)
    rig.client.wait(rig.client.start("pve1", 110), deadline=10)
    assert rig.client.vm_status("pve1", 110)["status"] == "running"
    assert len(rig.plugs.on) == 1


def test_a_start_that_fails_can_be_started_again(proxmox):
    rig = proxmox("proxmox.start-task-fails")
    bare(rig.client)
    with pytest.raises(TaskFailed, match="QEMU exited with code 1"):
        rig.client.wait(rig.client.start("pve1", 110), deadline=10)
    rig.client.wait(rig.client.start("pve1", 110), deadline=10)
    assert len(rig.plugs.on) == 1


@pytest.mark.parametrize("fault", ["proxmox.task-status-400-once", "proxmox.task-status-500-once"])
def test_a_task_that_is_not_known_yet_is_asked_for_again(proxmox, fault):
    rig = proxmox(fault)
    bare(rig.client)
    assert rig.client.config("pve1", 110)["name"] == "bare"


def test_a_task_that_takes_too_long_names_the_deadline(proxmox):
    rig = proxmox(speed=0.1)
    upid = rig.client.create_vm("pve1", vmid=110, name="slow")
    statuses: list[TaskStatus] = []
    with pytest.raises(
        DeadlineExceeded, match=r"timed out after 0.3 s waiting for task qmcreate 110 on pve1 \(deadlines.vm_create\)"
    ) as late:
        rig.client.wait(upid, deadline=0.3, name="vm_create", on_poll=statuses.append)
    assert "deadlines.vm_create" in late.value.remedy
    assert statuses
    assert all(status.running for status in statuses)


def test_a_locked_vm_is_waited_for(proxmox):
    rig = proxmox()
    bare(rig.client)
    rig.background.call(rig.lab.set_lock, 110, "backup")
    with pytest.raises(VmLocked) as locked:
        rig.client.configure("pve1", 110, {"memory": 4096})
    assert locked.value.lock == "backup"
    locks: list[str] = []

    def polled(lock: str) -> None:
        locks.append(lock)
        if len(locks) == 2:
            rig.background.call(rig.lab.remove_lock, 110)

    rig.client.wait_unlocked("pve1", 110, deadline=10, on_poll=polled)
    assert locks == ["backup", "backup"]
    rig.client.configure("pve1", 110, {"memory": 4096})
    assert rig.client.config("pve1", 110)["memory"] == "4096"


def test_a_lock_that_stays_is_named_when_the_deadline_has_passed(proxmox):
    rig = proxmox()
    bare(rig.client)
    rig.background.call(rig.lab.set_lock, 110, "migrate")
    with pytest.raises(DeadlineExceeded, match=r"timed out after 0\.2 s waiting for the lock of VM 110") as late:
        rig.client.wait_unlocked("pve1", 110, deadline=0.2)
    assert late.value.cause == "VM 110 on pve1 is still locked (migrate)"


def test_a_start_task_that_meets_a_lock_says_which(proxmox):
    rig = proxmox("proxmox.lock-backup", speed=10)
    bare(rig.client)
    with pytest.raises(VmLocked) as locked:
        rig.client.wait(rig.client.start("pve1", 110), deadline=10)
    assert locked.value.lock == "backup"
    assert rig.plugs.on == []


def test_a_worker_waits_for_the_configuration_file_and_then_gives_up(proxmox):
    rig = proxmox(speed=1)  # creating takes 0.6 s and holds the file; a worker waits for 1 s
    rig.client.create_vm("pve1", vmid=110, name="slow")
    rig.client.wait(rig.client.start("pve1", 110), deadline=10)
    vm = rig.lab.inventory.vms[110]
    rig.background.run(vm.flock.acquire())
    with pytest.raises(VmLocked) as locked:
        rig.client.wait(rig.client.stop("pve1", 110), deadline=10)
    assert locked.value.lock == "config file"
    rig.background.call(vm.flock.release)


def test_a_change_with_an_old_digest_is_a_conflict(proxmox):
    rig = proxmox()
    bare(rig.client)
    digest = rig.client.config("pve1", 110)["digest"]
    rig.client.configure("pve1", 110, {"cores": 4}, digest=digest)
    with pytest.raises(Conflict, match="checksum mismatch"):
        rig.client.configure("pve1", 110, {"cores": 8}, digest=digest)
    assert rig.client.config("pve1", 110)["cores"] == 4


def test_a_running_vm_keeps_what_it_cannot_change_until_it_is_started_again(proxmox):
    rig = proxmox()
    bare(rig.client, memory=2048)
    rig.client.wait(rig.client.start("pve1", 110), deadline=10)
    rig.client.configure("pve1", 110, {"memory": 4096, "tags": "b;a"})
    assert rig.client.config("pve1", 110)["memory"] == "4096"
    assert rig.client.config("pve1", 110)["tags"] == "a;b"
    rig.client.wait(rig.client.stop("pve1", 110), deadline=10)
    rig.client.wait(rig.client.start("pve1", 110), deadline=10)
    assert [boot.memory_mib for boot in rig.plugs.on] == [2048, 4096]


def test_a_disk_grows_and_never_shrinks(proxmox):
    rig = proxmox()
    bare(rig.client, scsi0="local-lvm:20")
    rig.client.wait(rig.client.resize("pve1", 110, "scsi0", 40), deadline=10)
    assert rig.client.config("pve1", 110)["scsi0"] == "local-lvm:vm-110-disk-0,size=40G"
    [volume] = rig.client.storage_content("pve1", "local-lvm", "images")
    assert volume["size"] == 40 * 1024**3
    with pytest.raises(TaskFailed, match="shrinking disks is not supported"):
        rig.client.wait(rig.client.resize("pve1", 110, "scsi0", 20), deadline=10)


def test_a_disk_can_be_added_to_an_existing_vm(proxmox):
    rig = proxmox()
    bare(rig.client, scsi0="local-lvm:20")
    rig.client.configure("pve1", 110, {"scsi1": "local-lvm:80,discard=on", "net0": "virtio,bridge=vmbr0"})
    config = rig.client.config("pve1", 110)
    assert config["scsi1"] == "local-lvm:vm-110-disk-1,discard=on,size=80G"
    assert config["net0"].startswith("virtio=BC:24:11:")


def test_options_are_removed_by_name(proxmox):
    rig = proxmox()
    bare(rig.client, nameserver="1.1.1.1", onboot=True)
    rig.client.configure("pve1", 110, {}, delete="nameserver,onboot")
    assert not {"nameserver", "onboot"} & set(rig.client.config("pve1", 110))


def test_a_vm_is_destroyed_only_when_it_is_stopped_and_unprotected(proxmox):
    rig = proxmox()
    bare(rig.client, scsi0="local-lvm:20", protection=True)
    with pytest.raises(Rejected, match="protection mode") as kept:
        rig.client.delete("pve1", 110)
    assert present(kept.value).next == "qm set 110 --protection 0"
    rig.client.configure("pve1", 110, {"protection": 0})
    rig.client.wait(rig.client.start("pve1", 110), deadline=10)
    with pytest.raises(OutsideError, match="is running - destroy failed"):
        rig.client.delete("pve1", 110)
    rig.client.wait(rig.client.stop("pve1", 110), deadline=10)
    rig.client.wait(rig.client.delete("pve1", 110), deadline=10)
    assert rig.client.storage_content("pve1", "local-lvm") == []
    with pytest.raises(NotFound):
        rig.client.config("pve1", 110)


def test_a_guest_that_does_not_listen_is_stopped_after_the_timeout(proxmox):
    rig = proxmox("proxmox.shutdown-ignored")
    bare(rig.client)
    rig.client.wait(rig.client.start("pve1", 110), deadline=10)
    with pytest.raises(TaskFailed, match="got timeout"):
        rig.client.wait(rig.client.shutdown("pve1", 110, timeout=1, force_stop=False), deadline=10)
    rig.client.wait(rig.client.shutdown("pve1", 110, timeout=1), deadline=10)
    assert rig.plugs.off == [rig.plugs.on[0].uuid]


def test_a_full_storage_is_named_and_nothing_is_left(proxmox):
    rig = proxmox("proxmox.storage-full")
    with pytest.raises(TaskFailed, match="free space in thin pool") as full:
        bare(rig.client, scsi0="local-lvm:20")
    assert present(full.value).failure == "F64 The storage is full"
    assert 110 not in rig.lab.inventory.vms
    assert [store["avail"] for store in rig.client.storages("pve1")] == [0, 0]


def test_a_download_that_breaks_off_leaves_no_file(proxmox):
    rig = proxmox("proxmox.download-fails")
    with pytest.raises(TaskFailed, match="download failed") as broken:
        download(rig.client)
    assert "Connection reset by peer" in broken.value.detail
    assert rig.client.storage_content("pve1", "local") == []
    assert download(rig.client).ok


def test_the_server_that_refused_a_download_is_examined_not_the_source_of_the_file(proxmox):
    rig = proxmox("proxmox.token-lacks-download")
    with pytest.raises(OutsideError) as refused:
        download(rig.client)
    assert refused.value.facts["source"] == IMAGE_URL
    assert refused.value.facts["url"].endswith(":8006")


def test_a_file_is_never_downloaded_over(proxmox):
    rig = proxmox()
    download(rig.client)
    with pytest.raises(TaskFailed, match="refusing to override existing file"):
        download(rig.client)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"nonsense": 1}, "nonsense: property is not defined in schema"),
        ({"memory": "much"}, "memory.current: type check ('integer') failed"),
        ({"memory": 8}, "memory.current: value must have a minimum value of 16"),
        ({"bios": "uefi"}, "bios: value 'uefi' does not have a value in the enumeration"),
        ({"net0": "virtio=BC:24"}, "macaddr"),
        ({"scsi0": "local:20"}, "storage 'local' does not support vm images"),
        ({"scsi0": "nowhere:20"}, "storage 'nowhere' does not exist"),
        ({"scsi0": "local-lvm:20G"}, "unable to parse lvm volume name '20G'"),
        ({"scsi0": "local-lvm:20,import-from=local:import/a.raw"}, "requires special syntax"),
        ({"args": "-cpu host"}, "only root can set 'args' config"),
    ],
)
def test_wrong_parameters_are_refused_with_the_reason(proxmox, params, said):
    rig = proxmox()
    with pytest.raises(OutsideError) as refused:
        rig.client.create_vm("pve1", vmid=110, **params)
    assert said in refused.value.detail
    assert 110 not in rig.lab.inventory.vms


def test_a_missing_image_fails_the_task_and_frees_the_id(proxmox):
    rig = proxmox()
    with pytest.raises(TaskFailed, match=r"volume local:iso/none.iso does not exist") as gone:
        bare(rig.client, scsi0="local-lvm:20", ide2="local:iso/none.iso,media=cdrom")
    assert "downloads the image first" in present(gone.value).remedy
    assert 110 not in rig.lab.inventory.vms
    assert rig.client.storage_content("pve1", "local-lvm") == []


def test_an_unknown_node_is_not_found(proxmox):
    rig = proxmox()
    with pytest.raises(NotFound, match="hostname lookup 'pve9' failed"):
        rig.client.storages("pve9")


def test_a_wrong_token_is_named_by_its_id_and_never_by_its_secret(proxmox):
    rig = proxmox()
    client = rig.another(token_secret="wrong-secret-value")
    with pytest.raises(AccessDenied, match="fluobook@pve!fluobook") as denied:
        client.version()
    assert "PVEAPIToken=" in " ".join(present(denied.value).causes)
    assert present(denied.value).next == "pveum user token list fluobook@pve"
    assert "wrong-secret-value" not in f"{present(denied.value).text()} {denied.value!r} {client.endpoint!r}"


def test_a_missing_privilege_is_named_with_the_commands_that_grant_it(proxmox):
    grants = {"/": ("VM.Audit",), "/storage/local": ("Datastore.Audit",)}
    rig = proxmox(token=Token("fluobook@pve!fluobook", "6f1c3a52-aaaa-bbbb-cccc-0123456789ab", grants))
    with pytest.raises(AccessDenied, match=r"/storage/local, Datastore.AllocateTemplate") as denied:
        rig.client.download_url("pve1", "local", url=IMAGE_URL, filename="nocloud.iso")
    assert "Datastore.AllocateTemplate on /storage/local" in denied.value.cause
    assert "pveum acl modify /storage/local --tokens 'fluobook@pve!fluobook'" in denied.value.remedy
    with pytest.raises(AccessDenied) as denied:
        rig.client.create_vm("pve1", vmid=110, name="none")
    assert "VM.Allocate on /vms" in denied.value.cause, "Proxmox VE does not say which privilege is missing here"


def test_a_bridge_needs_the_right_to_use_it(proxmox):
    rights = ("VM.Allocate", "VM.Audit", "VM.Config.Network")
    rig = proxmox(token=Token("fluobook@pve!fluobook", "6f1c3a52-aaaa-bbbb-cccc-0123456789ab", {"/": rights}))
    with pytest.raises(AccessDenied, match=r"/sdn/zones/localnetwork/vmbr0, SDN.Use") as denied:
        rig.client.create_vm("pve1", vmid=110, net0="virtio,bridge=vmbr0")
    assert "pveum acl modify /sdn/zones/localnetwork/vmbr0" in denied.value.remedy
    assert [net["iface"] for net in rig.client.networks("pve1")] == ["eno1"], "its bridges are hidden as well"


def test_a_token_without_rights_sees_nothing_and_may_do_nothing(proxmox):
    rig = proxmox("proxmox.token-no-rights")
    rig.background.call(rig.lab.add_vm, 200, "prod-db", "pve1")
    assert rig.client.permissions() == {}
    assert rig.client.resources("vm") == []
    with pytest.raises(AccessDenied):
        rig.client.config("pve1", 200)


def test_a_host_that_is_off_line_does_not_answer(proxmox):
    rig = proxmox(hosts=(Host("pve1"), Host("pve2", online=False)))
    with pytest.raises(Unreachable, match="No route to host"):
        rig.client.networks("pve2")
    assert [node["status"] for node in rig.client.nodes()] == ["online", "offline"]


def test_reading_is_repeated_while_the_answer_is_transient(proxmox):
    rig = proxmox("proxmox.task-status-500-once")
    upid = rig.client.create_vm("pve1", vmid=110, name="bare")
    assert rig.client.task_status(upid).upid == upid


def test_a_pinned_fingerprint_replaces_the_authority(proxmox):
    rig = proxmox()
    pinned = fingerprint(rig.certificate)
    assert rig.another(ca_file=None, fingerprint=pinned).version()["release"] == "9.0"
    other = rig.another(ca_file=None, fingerprint="AA" + pinned[2:] if pinned[:2] != "AA" else "BB" + pinned[2:])
    with pytest.raises(Unreachable, match="not trusted") as refused:
        other.version()
    assert pinned in refused.value.detail, "the fingerprint that was seen is shown, to compare it with the host's"


def test_a_certificate_of_an_unknown_authority_is_refused(proxmox):
    rig = proxmox()
    with pytest.raises(Unreachable, match="not trusted") as refused:
        rig.another(ca_file=None).version()
    assert "SHA-256 fingerprint seen: " in refused.value.detail
    assert rig.lab.requests == []


def test_the_certificate_must_be_for_the_real_host_whatever_the_address(proxmox):
    rig = proxmox()
    assert rig.another(url="https://pve1.lab:8006").version()
    with pytest.raises(Unreachable, match="not trusted"):
        rig.another(url="https://other.lab:8006").version()


def test_a_ca_file_that_is_not_there_is_named(proxmox, tmp_path):
    rig = proxmox()
    with pytest.raises(Unreachable, match=r"missing\.pem"):
        rig.another(ca_file=str(tmp_path / "missing.pem")).version()
    with pytest.raises(Unreachable, match=r"missing\.pem"):
        rig.another(ca_file=str(tmp_path / "missing.pem"), fingerprint="AA" * 32).version()


def test_a_host_that_is_not_there_is_unreachable(proxmox):
    rig = proxmox()
    rig.background.run(rig.lab.stop())
    with pytest.raises(Unreachable, match=r"does not answer at 192\.0\.2\.5:8006"):
        rig.client.version()


@pytest.mark.parametrize("change", [{"url": "http://192.0.2.5:8006"}, {"token_id": "fluobook"}, {"token_id": "a@b"}])
def test_an_endpoint_that_cannot_be_right_is_refused_before_anything_is_asked(proxmox, change):
    with pytest.raises(UsageError):
        proxmox().another(**change)


def test_one_client_serves_many_threads(proxmox):
    rig = proxmox()
    barrier = threading.Barrier(8, timeout=10)

    def work(vmid: int) -> str:
        barrier.wait()
        bare(rig.client, vmid, scsi0="local-lvm:10")
        rig.client.wait(rig.client.start("pve1", vmid), deadline=10)
        return rig.client.config("pve1", vmid)["scsi0"]

    with ThreadPoolExecutor(8) as pool:
        disks = list(pool.map(work, range(100, 108)))
    assert disks == [f"local-lvm:vm-{vmid}-disk-0,size=10G" for vmid in range(100, 108)]
    assert {boot.vmid for boot in rig.plugs.on} == set(range(100, 108))


def test_the_storage_of_another_host_is_its_own_unless_shared(proxmox):
    rig = proxmox(
        hosts=(Host("pve1"), Host("pve2")),
        storages=(Storage("local", ("iso",)), Storage("nfs", ("iso",), shared=True)),
    )
    for store in ("local", "nfs"):
        upid = rig.client.download_url("pve1", store, url=IMAGE_URL, filename="nocloud.iso")
        rig.client.wait(upid, deadline=10)
    assert rig.client.storage_content("pve2", "local") == []
    assert len(rig.client.storage_content("pve2", "nfs")) == 1
