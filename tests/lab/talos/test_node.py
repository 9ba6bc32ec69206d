"""A configured node: who may do what, etcd once, and how it lives through changes, reboots and resets."""

from __future__ import annotations

import hashlib

import pytest
import yaml

from fluobook.clients.talos import Mode, connect, maintenance
from fluobook.clients.talos.resources import (
    ADDRESSES,
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


def configure(world, name="cp-1", ip="10.10.0.10", text=None):
    """Take a machine from nothing to a configured node that has booted from its disk."""
    world.power_on(name, ip)
    world.wait_mode("maintenance", ip)
    node = maintenance(world.address(ip))
    node.apply_configuration(text or world.controlplane(name))
    node.close()
    booted(world, name)


def booted(world, name):
    world.wait(lambda: world.do(lambda: "cri" in world.machines.node(name).services))


def bootstrap(world, name="cp-1", ip="10.10.0.10"):
    world.connect(ip).bootstrap()
    world.wait_stage(name, "running")


@pytest.fixture
def cp(world):
    configure(world)
    with world.connect() as node:
        yield node


@pytest.fixture
def running(world, cp):
    bootstrap(world)
    return cp


def test_it_has_a_certificate_for_its_real_address(world, cp):
    assert world.probe().mode is Mode.CONFIGURED
    assert cp.get(HOSTNAME).spec["hostname"] == "cp-1"
    assert cp.get(ADDRESSES).spec["addresses"] == ["10.10.0.10/24"]
    assert cp.get(NODENAME).spec["nodename"] == "cp-1"


@pytest.mark.usefixtures("cp")
def test_its_certificate_is_not_good_for_another_address(world):
    other = world.address()
    wrong = type(other)(other.host, other.port, "10.10.0.99")
    admin = world.pki.client()
    with pytest.raises(Unreachable) as caught:
        connect(wrong, ca=world.pki.talos.crt, crt=admin.crt, key=admin.key).version()
    assert caught.value.code == "CERTIFICATE"
    assert "10.10.0.99" in caught.value.detail


def test_further_names_of_the_configuration_are_in_the_certificate(world):
    configure(world, text=world.controlplane(certSANs=["203.0.113.10", "talos.example.org"]))
    admin = world.pki.client()
    for name in ("203.0.113.10", "talos.example.org", "cp-1"):
        address = type(world.address())("127.0.0.1", world.address().port, name)
        assert connect(address, ca=world.pki.talos.crt, crt=admin.crt, key=admin.key).version().tag == "v1.13.9"


@pytest.mark.usefixtures("cp")
def test_another_clusters_node_is_foreign_and_never_talked_to(world):
    stranger = type(world.pki)()
    assert world.probe(pki=stranger).mode is Mode.FOREIGN
    with pytest.raises(Unreachable) as caught:
        world.connect(pki=stranger).version()
    assert caught.value.code == "CERTIFICATE"


@pytest.mark.usefixtures("cp")
def test_a_client_of_another_authority_is_refused_by_the_node(world):
    stranger = type(world.pki)().client()
    node = connect(world.address(), ca=world.pki.talos.crt, crt=stranger.crt, key=stranger.key)
    with pytest.raises(Unreachable) as caught:
        node.version()
    assert caught.value.code == "TLS_ALERT"


@pytest.mark.usefixtures("cp")
def test_nobody_comes_in_without_a_certificate(world):
    with pytest.raises(Unreachable) as caught:
        maintenance(world.address()).apply_configuration(world.controlplane())
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
def test_roles_decide_who_may_call_what(world, role, method, allowed):
    call = getattr(world.connect(role=role), method)
    if allowed:
        call()
    else:
        with pytest.raises(AccessDenied) as caught:
            call()
        assert caught.value.detail == "not authorized"


@pytest.mark.usefixtures("cp")
def test_only_administrators_read_and_write_the_configuration(world):
    reader, admin = world.connect(role="os:reader"), world.connect()
    for call in (
        lambda: reader.get(MACHINE_CONFIG),
        lambda: reader.apply_configuration(world.controlplane(), dry_run=True),
    ):
        with pytest.raises(AccessDenied, match="not authorized"):
            call()
    assert "cp-1" in admin.get(MACHINE_CONFIG).spec


def test_it_waits_for_its_bootstrap_and_says_so(cp):
    stage = cp.machine_stage()
    assert (stage.stage, stage.ready) == ("booting", False)
    assert "etcd not running" in dict(stage.unmet)["services"]
    states = {service.id: service.state for service in cp.services()}
    assert (states["apid"], states["trustd"], states["etcd"]) == ("Running", "Running", "Preparing")
    with pytest.raises(Unreachable) as caught:
        cp.etcd_members()
    assert caught.value.code == "UNAVAILABLE"


def test_bootstrap_makes_the_one_etcd(world, running):
    (member,) = running.etcd_members()
    assert (member.hostname, member.peer_urls) == ("cp-1", ("https://10.10.0.10:2380",))
    assert running.get(ETCD_MEMBER).spec["memberID"] == member.id
    assert world.told.events == [("bootstrap", "cp-1"), ("up", "cp-1")]
    assert {service.id: service.healthy for service in running.services()}["etcd"] is True


def test_a_second_bootstrap_is_a_conflict(world, running):
    with pytest.raises(Conflict) as caught:
        running.bootstrap()
    assert caught.value.detail == "etcd data directory is not empty"
    assert len(world.machines.etcds) == 1


def test_a_bootstrap_right_after_another_is_a_conflict_too(world, cp):
    cp.bootstrap()
    with pytest.raises(Conflict):
        cp.bootstrap()
    world.wait_stage("cp-1", "running")
    assert len(world.machines.etcds) == 1


def test_bootstrap_waits_for_the_clock(make_world):
    world = make_world("talos.time-not-synced")
    configure(world)
    node = world.connect()
    assert node.get(TIME).spec["synced"] is False
    with pytest.raises(OutsideError) as caught:
        node.bootstrap()
    assert (caught.value.code, caught.value.detail) == ("FAILED_PRECONDITION", "time is not in sync yet")


def test_a_worker_gets_its_certificate_from_a_control_plane(world):
    configure(world, "worker-1", "10.10.0.20", world.worker())
    assert world.probe("10.10.0.20").mode is Mode.UNREACHABLE
    configure(world)
    world.wait_mode("configured", "10.10.0.20")
    world.wait_stage("worker-1", "running")


def test_a_worker_with_another_token_never_answers(world):
    configure(world)
    text = world.worker(token="zzzzzz.0123456789abcdef")
    configure(world, "worker-1", "10.10.0.20", text)
    assert world.probe("10.10.0.20").mode is Mode.UNREACHABLE


def test_a_worker_has_no_etcd_and_no_kubeconfig(world, running):
    configure(world, "worker-1", "10.10.0.20", world.worker())
    world.wait_stage("worker-1", "running")
    worker = world.connect("10.10.0.20")
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


def test_further_control_planes_join_the_bootstrapped_one(world, running):
    for name, ip in (("cp-2", "10.10.0.11"), ("cp-3", "10.10.0.12")):
        configure(world, name, ip)
        world.wait_stage(name, "running")
    assert [member.hostname for member in running.etcd_members()] == ["cp-1", "cp-2", "cp-3"]
    with pytest.raises(Conflict):
        world.connect("10.10.0.12").bootstrap()
    assert [event for event in world.told.events if event[0] == "bootstrap"] == [("bootstrap", "cp-1")]


def test_two_bootstraps_make_two_clusters(world, cp):
    configure(world, "cp-2", "10.10.0.11")
    world.do(lambda: [world.machines.node(name).bootstrap() for name in ("cp-1", "cp-2")])
    world.wait_stage("cp-1", "running")
    world.wait_stage("cp-2", "running")
    assert len(world.machines.etcds) == 2
    assert [member.hostname for member in cp.etcd_members()] == ["cp-1"]


def test_the_same_configuration_again_changes_nothing(world, cp):
    applied = cp.apply_configuration(world.controlplane(), dry_run=True)
    assert applied.unchanged
    assert applied.details == (
        "Dry run summary:\nApplied configuration without a reboot (skipped in dry-run).\nConfig diff:\n\nNo changes."
    )


def test_another_order_and_comments_are_no_change(world, cp):
    documents = list(yaml.safe_load_all(world.controlplane()))
    documents[0] = dict(reversed(documents[0].items()))
    text = "# hello\n" + yaml.safe_dump_all(documents, sort_keys=False)
    assert cp.apply_configuration(text, dry_run=True).unchanged


def test_a_label_is_applied_without_a_reboot(world, running):
    text = world.controlplane(nodeLabels={"a": "b"})
    planned = running.apply_configuration(text, dry_run=True)
    assert (planned.mode, planned.unchanged) == ("NO_REBOOT", False)
    assert "+  nodeLabels:" in planned.details
    assert running.apply_configuration(text).mode == "NO_REBOOT"
    assert running.apply_configuration(text, dry_run=True).unchanged
    assert world.told.events[-1] == ("config", "cp-1")
    main, *_ = yaml.safe_load_all(running.get(MACHINE_CONFIG).spec)
    assert main["machine"]["nodeLabels"] == {"a": "b"}


def test_what_needs_a_reboot_reboots_and_is_kept(world, running):
    text = world.controlplane(systemDiskEncryption={"state": {"provider": "luks2"}})
    assert running.apply_configuration(text, dry_run=True).mode == "REBOOT"
    assert running.apply_configuration(text).mode == "REBOOT"
    world.wait(lambda: ("down", "cp-1") in world.told.events)
    world.wait_stage("cp-1", "running")
    assert running.apply_configuration(text, dry_run=True).unchanged


def test_a_kubeconfig_is_of_the_clusters_authority(world, running):
    config = yaml.safe_load(running.kubeconfig())
    assert config["clusters"][0]["cluster"]["server"] == "https://10.10.0.10:6443"
    assert config["current-context"] == "admin@fluodata"
    authority = config["clusters"][0]["cluster"]["certificate-authority-data"]
    assert authority == world.pki.kubernetes.to_base64()["crt"]


def test_a_snapshot_of_etcd_appears_whole(running, tmp_path):
    snapshot = running.etcd_snapshot(tmp_path / "etcd.db")
    data = snapshot.path.read_bytes()
    assert len(data) == snapshot.size > 100_000
    assert hashlib.sha256(data).hexdigest() == snapshot.sha256
    assert snapshot.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["etcd.db"]


def test_no_snapshot_file_appears_without_etcd(cp, tmp_path):
    with pytest.raises(Unreachable):
        cp.etcd_snapshot(tmp_path / "etcd.db")
    assert not (tmp_path / "etcd.db").exists()


def test_a_reboot_ends_the_connection_and_comes_back_with_its_etcd(world, running):
    running.reboot()
    world.wait(lambda: ("down", "cp-1") in world.told.events)
    world.wait_stage("cp-1", "running")
    assert len(running.etcd_members()) == 1
    assert [event for event in world.told.events if event[0] == "bootstrap"] == [("bootstrap", "cp-1")]


def test_power_off_and_on_keeps_what_is_on_the_disk(world, running):
    vm = world.machines.node("cp-1").vm
    world.do(world.machines.power_off, vm.uuid)
    assert world.probe().mode is Mode.UNREACHABLE
    world.do(world.machines.power_on, vm)
    world.wait_stage("cp-1", "running")
    assert running.apply_configuration(world.controlplane(), dry_run=True).unchanged


def test_power_off_during_the_installation_loses_the_configuration(world):
    vm = world.power_on("cp-1")
    world.wait_mode("maintenance")
    maintenance(world.address()).apply_configuration(world.controlplane())
    world.wait_stage("cp-1", "installing")
    world.do(world.machines.power_on, vm)
    assert world.wait_mode("maintenance")


@pytest.mark.usefixtures("cp")
def test_a_destroyed_machine_starts_empty(world):
    vm = world.machines.node("cp-1").vm
    world.do(world.machines.forget, vm.uuid)
    world.do(world.machines.power_on, vm)
    assert world.wait_mode("maintenance")


def test_a_reset_wipes_the_node_and_leaves_etcd(world, running):
    configure(world, "cp-2", "10.10.0.11")
    world.wait_stage("cp-2", "running")
    assert len(running.etcd_members()) == 2
    world.connect("10.10.0.11").reset(graceful=True)
    world.wait_mode("maintenance", "10.10.0.11")
    assert [member.hostname for member in running.etcd_members()] == ["cp-1"]


def test_a_reset_of_etcds_partition_keeps_the_configuration(world, running):
    running.reset(graceful=False, partitions=["EPHEMERAL"])
    world.wait(lambda: ("down", "cp-1") in world.told.events)
    world.wait(lambda: world.do(lambda: "etcd" in world.machines.node("cp-1").services))
    running.bootstrap()
    world.wait_stage("cp-1", "running")


def test_an_upgrade_boots_another_version(world, running):
    running.upgrade("factory.talos.dev/nocloud-installer/" + "cd" * 32 + ":v1.13.10")
    world.wait(lambda: ("down", "cp-1") in world.told.events)
    world.wait_stage("cp-1", "running")
    assert running.version().tag == "v1.13.10"


def test_a_metal_installer_loses_the_static_address(world):
    text = world.controlplane(install={"disk": "/dev/sda", "image": "factory.talos.dev/installer/abc:v1.13.9"})
    configure(world, text=text)
    assert world.probe().mode is Mode.UNREACHABLE


def test_a_disk_that_is_not_there_ends_in_maintenance_again(world):
    world.power_on("cp-1")
    first = world.wait_mode("maintenance").fingerprint
    node = maintenance(world.address())
    text = world.controlplane(install={"disk": "/dev/nvme0n1"})
    node.apply_configuration(text)
    world.wait(lambda: world.wait_mode("maintenance").fingerprint != first)


def test_volumes_and_the_system_disk_are_told(world):
    volume = {"apiVersion": "v1alpha1", "kind": "UserVolumeConfig", "name": "longhorn"}
    configure(world, text=world.controlplane() + "---\n" + yaml.safe_dump(volume))
    node = world.connect()
    assert node.get(SYSTEM_DISK).spec["devPath"] == "/dev/sda"
    phases = {item.id: (item.spec["phase"], item.spec["parentLocation"]) for item in node.list(VOLUMES)}
    assert phases["u-longhorn"] == ("ready", "/dev/sdb")
    assert phases["EPHEMERAL"] == ("ready", "/dev/sda")


def test_readiness_comes_from_kubernetes(world, running):
    assert dict(running.machine_stage().unmet)["nodeReady"] == 'node "cp-1" is not ready'
    world.do(lambda: world.machines.node("cp-1").set_node_ready(ready=True))
    assert running.machine_stage().ready


@pytest.mark.usefixtures("running")
def test_etcd_without_a_quorum_is_not_joined(world):
    configure(world, "cp-2", "10.10.0.11")
    world.wait_stage("cp-2", "running")
    world.do(world.machines.power_off, world.machines.node("cp-1").vm.uuid)
    configure(world, "cp-3", "10.10.0.12")
    states = {service.id: service.state for service in world.connect("10.10.0.12").services()}
    assert states["etcd"] == "Preparing"


def test_an_absent_resource_is_not_found(cp):
    with pytest.raises(NotFound):
        cp.get(ETCD_MEMBER)


def test_a_configured_node_can_be_recognised_too(world, cp):
    vm = world.machines.node("cp-1").vm
    assert cp.identity().differs_from(uuid=vm.uuid, mac=vm.mac) == ()


def test_clients_of_a_further_accepted_authority_are_let_in(world):
    stranger = type(world.pki)()
    configure(world, text=world.controlplane(acceptedCAs=[{"crt": stranger.talos.to_base64()["crt"]}]))
    admin = stranger.client()
    node = connect(world.address(), ca=world.pki.talos.crt, crt=admin.crt, key=admin.key)
    assert node.version().tag == "v1.13.9"
