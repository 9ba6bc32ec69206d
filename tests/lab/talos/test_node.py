"""A configured node: roles, etcd, configuration changes, reboots and resets."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import yaml
from fluobook_lab.kube.kubelet import NodeInfo, node_info, node_object
from fluobook_lab.talos.describe import describe
from fluobook_lab.talos.resources import types

from fluobook.clients.talos import Mode, connect, maintenance
from fluobook.clients.talos.resources import (
    ADDRESSES,
    DISKS,
    ETCD_MEMBER,
    HOSTNAME,
    MACHINE_CONFIG,
    MEMBERS,
    NODENAME,
    SYSTEM_DISK,
    TIME,
    VOLUMES,
)
from fluobook.errors import AccessDenied, Conflict, NotFound, OutsideError, Unreachable
from fluobook.kubernetes import snapshot as etcd


def configure(lab, name="cp-1", ip="10.10.0.10", text=None):
    """Boot a machine, configure it, and wait until it has booted from its disk."""
    lab.power_on(name, ip)
    lab.wait_mode("maintenance", ip)
    node = maintenance(lab.address(ip))
    node.apply_configuration(text or lab.controlplane(name))
    node.close()
    booted(lab, name)


def booted(lab, name):
    lab.wait(lambda: lab.do(lambda: "cri" in lab.machines.node(name).services))


def bootstrap(lab, name="cp-1", ip="10.10.0.10"):
    lab.connect(ip).bootstrap()
    lab.wait_stage(name, "running")


@pytest.fixture
def cp(lab):
    configure(lab)
    with lab.connect() as node:
        yield node


@pytest.fixture
def running(lab, cp):
    bootstrap(lab)
    return cp


def test_a_kubelet_registers_with_the_taints_of_its_configuration():
    taint = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
    info = NodeInfo("worker-1", ("10.10.0.20",), own_taints=(taint,))
    assert node_object(info, "10.244.1.0/24")["spec"]["taints"][0] == taint


def test_it_has_a_certificate_for_its_real_address(lab, cp):
    assert lab.probe().mode is Mode.CONFIGURED
    assert cp.get(HOSTNAME).spec["hostname"] == "cp-1"
    assert cp.get(ADDRESSES).spec["addresses"] == ["10.10.0.10/24"]
    assert cp.get(NODENAME).spec["nodename"] == "cp-1"


@pytest.mark.usefixtures("cp")
def test_its_certificate_is_invalid_for_another_address(lab):
    other = lab.address()
    wrong = type(other)(other.host, other.port, "10.10.0.99")
    admin = lab.pki.client()
    with pytest.raises(Unreachable) as caught:
        connect(wrong, ca=lab.pki.talos.crt, crt=admin.crt, key=admin.key).version()
    assert caught.value.code == "CERTIFICATE_WRONG_HOST"
    assert "10.10.0.99" in caught.value.detail


def test_additional_names_are_in_the_certificate(lab):
    configure(lab, text=lab.controlplane(certSANs=["203.0.113.10", "talos.example.org"]))
    admin = lab.pki.client()
    for name in ("203.0.113.10", "talos.example.org", "cp-1"):
        address = type(lab.address())("127.0.0.1", lab.address().port, name)
        assert connect(address, ca=lab.pki.talos.crt, crt=admin.crt, key=admin.key).version().tag == "v1.13.9"


@pytest.mark.usefixtures("cp")
def test_a_node_of_another_cluster_is_foreign(lab):
    stranger = type(lab.pki)()
    assert lab.probe(pki=stranger).mode is Mode.FOREIGN
    with pytest.raises(Unreachable) as caught:
        lab.connect(pki=stranger).version()
    assert caught.value.code == "CERTIFICATE"


@pytest.mark.usefixtures("cp")
def test_a_client_of_another_authority_is_refused_by_the_node(lab):
    stranger = type(lab.pki)().client()
    node = connect(lab.address(), ca=lab.pki.talos.crt, crt=stranger.crt, key=stranger.key)
    with pytest.raises(Unreachable) as caught:
        node.version()
    assert caught.value.code == "TLS_ALERT"


@pytest.mark.usefixtures("cp")
def test_a_client_without_a_certificate_is_refused(lab):
    with pytest.raises(Unreachable) as caught:
        maintenance(lab.address()).apply_configuration(lab.controlplane())
    assert caught.value.code == "TLS_ALERT"
    assert "CERTIFICATE_REQUIRED" in caught.value.detail


@pytest.mark.usefixtures("cp")
@pytest.mark.parametrize(
    ("role", "method", "allowed"),
    [
        ("os:reader", "version", True),
        ("os:reader", "services", True),
        ("os:reader", "bootstrap", False),
        ("os:reader", "kubeconfig", False),
        ("os:reader", "reboot", False),
        ("os:operator", "reset", False),
        ("os:operator", "kubeconfig", False),
        ("os:operator", "reboot", True),
        ("os:etcd:backup", "version", False),
        ("os:nobody", "version", False),
    ],
)
def test_roles_restrict_calls(lab, role, method, allowed):
    call = getattr(lab.connect(role=role), method)
    if allowed:
        call()
    else:
        with pytest.raises(AccessDenied) as caught:
            call()
        assert caught.value.detail == "not authorized"


@pytest.mark.usefixtures("cp")
def test_only_administrators_read_and_write_the_configuration(lab):
    reader, admin = lab.connect(role="os:reader"), lab.connect()
    for call in (
        lambda: reader.get(MACHINE_CONFIG),
        lambda: reader.apply_configuration(lab.controlplane(), dry_run=True),
    ):
        with pytest.raises(AccessDenied, match="not authorized"):
            call()
    assert "cp-1" in admin.get(MACHINE_CONFIG).spec


def test_before_the_bootstrap_the_stage_is_booting(cp):
    stage = cp.machine_stage()
    assert (stage.stage, stage.ready) == ("booting", False)
    assert "etcd not running" in dict(stage.unmet)["services"]
    states = {service.id: service.state for service in cp.services()}
    assert (states["apid"], states["trustd"], states["etcd"]) == ("Running", "Running", "Preparing")
    with pytest.raises(Unreachable) as caught:
        cp.etcd_members()
    assert caught.value.code == "UNAVAILABLE"


def test_bootstrap_creates_one_etcd_cluster(lab, running):
    (member,) = running.etcd_members()
    assert (member.hostname, member.peer_urls) == ("cp-1", ("https://10.10.0.10:2380",))
    assert running.get(ETCD_MEMBER).spec["memberID"] == member.id
    assert lab.cluster.events == [("bootstrap", "cp-1"), ("up", "cp-1")]
    assert {service.id: service.healthy for service in running.services()}["etcd"] is True


def test_a_second_bootstrap_is_a_conflict(lab, running):
    with pytest.raises(Conflict) as caught:
        running.bootstrap()
    assert caught.value.detail == "etcd data directory is not empty"
    assert len(lab.machines.etcds) == 1


def test_a_bootstrap_right_after_another_is_a_conflict_too(lab, cp):
    cp.bootstrap()
    with pytest.raises(Conflict):
        cp.bootstrap()
    lab.wait_stage("cp-1", "running")
    assert len(lab.machines.etcds) == 1


def test_bootstrap_is_refused_until_the_clock_is_synchronised(start_lab):
    lab = start_lab("talos.time-not-synced")
    configure(lab)
    node = lab.connect()
    assert node.get(TIME).spec["synced"] is False
    with pytest.raises(OutsideError) as caught:
        node.bootstrap()
    assert (caught.value.code, caught.value.detail) == ("FAILED_PRECONDITION", "time is not in sync yet")


def test_a_worker_gets_its_certificate_from_a_control_plane(lab):
    configure(lab, "worker-1", "10.10.0.20", lab.worker())
    assert lab.probe("10.10.0.20").mode is Mode.UNREACHABLE
    configure(lab)
    lab.wait_mode("configured", "10.10.0.20")
    lab.wait_stage("worker-1", "running")


def test_a_worker_with_another_token_stays_unreachable(lab):
    configure(lab)
    text = lab.worker(token="zzzzzz.0123456789abcdef")
    configure(lab, "worker-1", "10.10.0.20", text)
    assert lab.probe("10.10.0.20").mode is Mode.UNREACHABLE


def test_a_worker_has_no_etcd_and_no_kubeconfig(lab, running):
    configure(lab, "worker-1", "10.10.0.20", lab.worker())
    lab.wait_stage("worker-1", "running")
    worker = lab.connect("10.10.0.20")
    for call, name in (
        (worker.bootstrap, "bootstrap"),
        (worker.kubeconfig, "kubeconfig"),
        (worker.etcd_members, "member list"),
    ):
        with pytest.raises(OutsideError) as caught:
            call()
        assert caught.value.code == "UNIMPLEMENTED"
        assert caught.value.detail == f"{name} is only available on control plane nodes"
    assert [member.id for member in running.list(MEMBERS)] == ["cp-1", "worker-1"]
    assert {member.spec["machineType"] for member in worker.list(MEMBERS)} == {"controlplane", "worker"}


def test_other_control_planes_join_the_cluster(lab, running):
    for name, ip in (("cp-2", "10.10.0.11"), ("cp-3", "10.10.0.12")):
        configure(lab, name, ip)
        lab.wait_stage(name, "running")
    assert [member.hostname for member in running.etcd_members()] == ["cp-1", "cp-2", "cp-3"]
    with pytest.raises(Conflict):
        lab.connect("10.10.0.12").bootstrap()
    assert [event for event in lab.cluster.events if event[0] == "bootstrap"] == [("bootstrap", "cp-1")]


def test_the_members_of_etcd_agree_on_a_leader_and_elect_another_when_it_is_down(lab, running):
    assert running.etcd_status().leader == running.etcd_status().id
    for name, ip in (("cp-2", "10.10.0.11"), ("cp-3", "10.10.0.12")):
        configure(lab, name, ip)
        lab.wait_stage(name, "running")
    others = [lab.connect(ip) for ip in ("10.10.0.11", "10.10.0.12")]
    assert {node.etcd_status().leader for node in others} == {running.etcd_status().id}
    before = running.etcd_status().term
    lab.do(lab.machines.power_off, lab.machines.node("cp-1").vm.uuid)
    now = [node.etcd_status() for node in others]
    assert {status.leader for status in now} == {now[0].id}
    assert {status.term for status in now} == {before + 1}
    assert len(others[0].etcd_members()) == 3
    lab.do(lab.machines.power_off, lab.machines.node("cp-2").vm.uuid)
    assert others[1].etcd_status().leader == ""


def test_two_bootstraps_create_two_clusters(lab, cp):
    configure(lab, "cp-2", "10.10.0.11")
    lab.do(lambda: [lab.machines.node(name).bootstrap() for name in ("cp-1", "cp-2")])
    lab.wait_stage("cp-1", "running")
    lab.wait_stage("cp-2", "running")
    assert len(lab.machines.etcds) == 2
    assert [member.hostname for member in cp.etcd_members()] == ["cp-1"]


def test_the_same_configuration_again_changes_nothing(lab, cp):
    applied = cp.apply_configuration(lab.controlplane(), dry_run=True)
    assert applied.unchanged
    assert applied.details == (
        "Dry run summary:\nApplied configuration without a reboot (skipped in dry-run).\nConfig diff:\n\nNo changes."
    )


def test_another_order_and_comments_are_no_change(lab, cp):
    documents = list(yaml.safe_load_all(lab.controlplane()))
    documents[0] = dict(reversed(documents[0].items()))
    text = "# hello\n" + yaml.safe_dump_all(documents, sort_keys=False)
    assert cp.apply_configuration(text, dry_run=True).unchanged


def test_a_label_is_applied_without_a_reboot(lab, running):
    text = lab.controlplane(nodeLabels={"a": "b"})
    planned = running.apply_configuration(text, dry_run=True)
    assert (planned.mode, planned.unchanged) == ("NO_REBOOT", False)
    assert "+  nodeLabels:" in planned.details
    assert running.apply_configuration(text).mode == "NO_REBOOT"
    assert running.apply_configuration(text, dry_run=True).unchanged
    assert lab.cluster.events[-1] == ("config", "cp-1")
    main, *_ = yaml.safe_load_all(running.get(MACHINE_CONFIG).spec)
    assert main["machine"]["nodeLabels"] == {"a": "b"}


def test_a_change_that_needs_a_reboot_survives_it(lab, running):
    text = lab.controlplane(systemDiskEncryption={"state": {"provider": "luks2", "keys": [{"slot": 0, "nodeID": {}}]}})
    assert running.apply_configuration(text, dry_run=True).mode == "REBOOT"
    assert running.apply_configuration(text).mode == "REBOOT"
    lab.wait(lambda: ("down", "cp-1") in lab.cluster.events)
    lab.wait_stage("cp-1", "running")
    assert running.apply_configuration(text, dry_run=True).unchanged


def test_a_kubeconfig_is_of_the_clusters_authority(lab, running):
    config = yaml.safe_load(running.kubeconfig())
    assert config["clusters"][0]["cluster"]["server"] == "https://10.10.0.10:6443"
    assert config["current-context"] == "admin@fluodata"
    authority = config["clusters"][0]["cluster"]["certificate-authority-data"]
    assert authority == lab.pki.kubernetes.to_base64()["crt"]


def test_an_etcd_snapshot_file_is_complete(running, tmp_path):
    snapshot = running.etcd_snapshot(tmp_path / "etcd.db")
    data = snapshot.path.read_bytes()
    assert len(data) == snapshot.size
    assert etcd.read(data).revision == 7
    assert hashlib.sha256(data).hexdigest() == snapshot.sha256
    assert snapshot.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["etcd.db"]


def test_no_snapshot_file_appears_without_etcd(cp, tmp_path):
    with pytest.raises(Unreachable):
        cp.etcd_snapshot(tmp_path / "etcd.db")
    assert not (tmp_path / "etcd.db").exists()


def uploaded(node, data):
    node.etcd_recover(data, timeout=30)
    node.bootstrap(recover=True)


def etcd_service(node):
    return next(service for service in node.services() if service.id == "etcd")


def test_a_snapshot_is_restored_once_and_only_onto_an_empty_member(lab, running, tmp_path):
    """As in Talos, a damaged snapshot is accepted by both calls, and shown by the service alone."""
    data = running.etcd_snapshot(tmp_path / "etcd.db").path.read_bytes()
    with pytest.raises(Conflict, match="etcd data directory is not empty"):
        uploaded(running, data)
    running.reset(graceful=False, partitions=["EPHEMERAL"])
    lab.wait(lambda: ("down", "cp-1") in lab.cluster.events)
    booted(lab, "cp-1")
    lab.wait_mode("configured")
    node = lab.connect()
    node.bootstrap(recover=True)
    assert "no such file or directory" in etcd_service(node).message
    flipped = bytes([*data[:5000], data[5000] ^ 1, *data[5001:]])
    uploaded(node, flipped)
    assert etcd_service(node).state == "Failed"
    assert "the checksum does not match" in etcd_service(node).message
    uploaded(node, data)
    lab.wait_stage("cp-1", "running")
    assert lab.do(lambda: lab.machines.etcds[-1].content) == data
    assert node.etcd_status().index < running.etcd_status().index + 1000
    with pytest.raises(Conflict):
        uploaded(node, data)


def test_without_a_quorum_only_the_member_itself_answers(lab, running):
    configure(lab, "cp-2", "10.10.0.11")
    lab.wait_stage("cp-2", "running")
    lab.do(lab.machines.power_off, lab.machines.node("cp-2").vm.uuid)
    with pytest.raises(Unreachable, match="request timed out"):
        running.etcd_members()
    assert running.etcd_status().leader == ""
    assert etcd_service(running).healthy is False


def test_a_node_keeps_its_etcd_over_a_reboot(lab, running):
    running.reboot()
    lab.wait(lambda: ("down", "cp-1") in lab.cluster.events)
    lab.wait_stage("cp-1", "running")
    assert len(running.etcd_members()) == 1
    assert [event for event in lab.cluster.events if event[0] == "bootstrap"] == [("bootstrap", "cp-1")]


def test_the_disk_survives_a_power_cycle(lab, running):
    vm, data = lab.machines.node("cp-1").vm, lab.machines.node("cp-1").disk.data
    lab.do(lab.machines.power_off, vm.uuid)
    assert lab.probe().mode is Mode.UNREACHABLE
    lab.do(lab.machines.power_on, vm)
    lab.wait_stage("cp-1", "running")
    assert running.apply_configuration(lab.controlplane(), dry_run=True).unchanged
    assert lab.machines.node("cp-1").disk.data == data


def test_power_off_during_the_installation_discards_the_configuration(lab):
    lab.machines.delays = replace(lab.machines.delays, install=10**6)
    vm = lab.power_on("cp-1")
    lab.wait_mode("maintenance")
    maintenance(lab.address()).apply_configuration(lab.controlplane())
    lab.wait_stage("cp-1", "installing")
    lab.do(lab.machines.power_on, vm)
    assert lab.wait_mode("maintenance")


@pytest.mark.usefixtures("cp")
def test_a_destroyed_machine_starts_empty(lab):
    vm, data = lab.machines.node("cp-1").vm, lab.machines.node("cp-1").disk.data
    lab.do(lab.machines.forget, vm.uuid)
    lab.do(lab.machines.power_on, vm)
    assert lab.wait_mode("maintenance")
    assert lab.machines.node("cp-1").disk.data != data


def test_a_reset_wipes_the_node_and_leaves_etcd(lab, running):
    configure(lab, "cp-2", "10.10.0.11")
    lab.wait_stage("cp-2", "running")
    assert len(running.etcd_members()) == 2
    lab.connect("10.10.0.11").reset(graceful=True)
    lab.wait_mode("maintenance", "10.10.0.11")
    assert [member.hostname for member in running.etcd_members()] == ["cp-1"]


def test_a_reset_of_etcds_partition_keeps_the_configuration(lab, running):
    running.reset(graceful=False, partitions=["EPHEMERAL"])
    lab.wait(lambda: ("down", "cp-1") in lab.cluster.events)
    lab.wait(lambda: lab.do(lambda: "etcd" in lab.machines.node("cp-1").services))
    running.bootstrap()
    lab.wait_stage("cp-1", "running")


def test_an_upgrade_boots_another_version(lab, running):
    running.upgrade("factory.talos.dev/nocloud-installer/" + "cd" * 32 + ":v1.13.10")
    lab.wait(lambda: ("down", "cp-1") in lab.cluster.events)
    lab.wait_stage("cp-1", "running")
    assert running.version().tag == "v1.13.10"


def test_an_upgrade_that_would_cost_etcd_its_quorum_is_refused(lab, running):
    configure(lab, "cp-2", "10.10.0.11")
    lab.wait_stage("cp-2", "running")
    with pytest.raises(OutsideError, match=r"etcd member count\(2\) is insufficient to maintain quorum"):
        running.upgrade("factory.talos.dev/nocloud-installer/" + "cd" * 32 + ":v1.13.10")
    assert running.version().tag == "v1.13.9"


def test_an_upgrade_beside_an_unhealthy_member_is_refused(lab, running):
    for name, ip in (("cp-2", "10.10.0.11"), ("cp-3", "10.10.0.12")):
        configure(lab, name, ip)
        lab.wait_stage(name, "running")
    lab.do(lambda: lab.machines.node("cp-3").disk.etcd.up.discard(lab.machines.node("cp-3").vm.uuid))
    with pytest.raises(OutsideError, match="is not healthy; all members must be healthy to perform an upgrade"):
        running.upgrade("factory.talos.dev/nocloud-installer/" + "cd" * 32 + ":v1.13.10")


def test_a_metal_installer_discards_the_static_address(lab):
    text = lab.controlplane(install={"disk": "/dev/sda", "image": "factory.talos.dev/installer/abc:v1.13.9"})
    configure(lab, text=text)
    assert lab.probe().mode is Mode.UNREACHABLE


def test_an_installation_to_a_missing_disk_returns_to_maintenance(lab):
    lab.power_on("cp-1")
    first = lab.wait_mode("maintenance").fingerprint
    node = maintenance(lab.address())
    text = lab.controlplane(install={"disk": "/dev/nvme0n1"})
    node.apply_configuration(text)
    lab.wait(lambda: lab.wait_mode("maintenance").fingerprint != first)


def test_volumes_and_the_system_disk_are_listed(lab):
    volume = {"apiVersion": "v1alpha1", "kind": "UserVolumeConfig", "name": "longhorn"}
    volume["provisioning"] = {"diskSelector": {"match": "!system_disk"}, "minSize": "10GiB"}
    configure(lab, text=lab.controlplane() + "---\n" + yaml.safe_dump(volume))
    node = lab.connect()
    disks = {item.spec["size"]: item.spec["dev_path"] for item in node.list(DISKS)}
    system, data = disks[20 * 2**30], disks[80 * 2**30]
    assert node.get(SYSTEM_DISK).spec["devPath"] == system
    phases = {item.id: (item.spec["phase"], item.spec["parentLocation"]) for item in node.list(VOLUMES)}
    assert phases["u-longhorn"] == ("ready", data)
    assert phases["EPHEMERAL"] == ("ready", system)


def test_readiness_comes_from_kubernetes(lab, running):
    assert running.machine_stage().unmet == (("nodeReady", 'node "cp-1" is not ready'),)
    lab.do(lambda: lab.machines.node("cp-1").set_node_ready(ready=True))
    assert running.machine_stage().ready


def test_a_clock_that_is_not_synchronised_is_an_unmet_condition(start_lab):
    lab = start_lab("talos.time-not-synced")
    configure(lab)
    assert dict(lab.connect().machine_stage().unmet)["time"] == "time is not synced"


def test_every_boot_has_an_id_of_its_own(lab, running):
    first = lab.do(lambda: lab.machines.node("cp-1").boot_id)
    running.reboot()
    lab.wait(lambda: lab.do(lambda: lab.machines.node("cp-1").boot_id) != first)
    lab.wait_stage("cp-1", "running")
    assert node_info(lab.machines.node("cp-1"), lab.machines.node("cp-1").config, "1.35.4").boot_id != first


def test_the_services_of_extensions_run(lab):
    lab.extensions += [("qemu-guest-agent", "v1.13.9"), ("util-linux-tools", "v1.13.9")]
    configure(lab)
    names = {service.id for service in lab.connect().services() if service.id.startswith("ext-")}
    assert names == {"ext-iscsid", "ext-tgtd", "ext-qemu-guest-agent"}


@pytest.mark.usefixtures("running")
def test_every_resource_has_a_known_type_in_its_default_namespace(lab):
    node = lab.machines.node("cp-1")
    lab.do(lambda: node.set_node_ready(ready=True))
    keys = [key for key, _ in lab.do(lambda: list(describe(node)))]
    assert {(key.namespace, key.type) for key in keys} <= {(namespace, name) for name, namespace in types().items()}


@pytest.mark.parametrize(("installer", "link"), [("nocloud-installer", "eth0"), ("metal-installer", "ens18")])
def test_the_first_network_card_has_the_name_that_the_platform_gives_it(lab, installer, link):
    lab.power_on("cp-1")
    node = lab.do(lambda: lab.machines.node("cp-1"))
    node.disk.image = f"factory.talos.dev/{installer}/{'a' * 64}:v1.13.9"
    links = [key.id for key, _ in lab.do(lambda: list(describe(node))) if key.type == "LinkStatuses.net.talos.dev"]
    assert links == ["lo", link]


@pytest.mark.usefixtures("running")
def test_etcd_without_a_quorum_is_not_joined(lab):
    configure(lab, "cp-2", "10.10.0.11")
    lab.wait_stage("cp-2", "running")
    lab.do(lab.machines.power_off, lab.machines.node("cp-1").vm.uuid)
    configure(lab, "cp-3", "10.10.0.12")
    states = {service.id: service.state for service in lab.connect("10.10.0.12").services()}
    assert states["etcd"] == "Preparing"


def test_an_absent_resource_is_not_found(cp):
    with pytest.raises(NotFound):
        cp.get(ETCD_MEMBER)


def test_a_configured_node_can_be_identified(lab, cp):
    vm = lab.machines.node("cp-1").vm
    assert cp.identity().differs_from(uuid=vm.uuid, mac=vm.mac) == ()


def test_clients_of_an_accepted_authority_are_accepted(lab):
    stranger = type(lab.pki)()
    configure(lab, text=lab.controlplane(acceptedCAs=[{"crt": stranger.talos.to_base64()["crt"]}]))
    admin = stranger.client()
    node = connect(lab.address(), ca=lab.pki.talos.crt, crt=admin.crt, key=admin.key)
    assert node.version().tag == "v1.13.9"
