"""The preflight against labs in which something is wrong: every problem is reported at once, nothing is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fluobook_lab.factory import VERSIONS

from fluobook.clients import age
from fluobook.errors import CheckFailed
from fluobook.machine import pki
from fluobook.stages import preflight
from fluobook.stages.core.check import Checks
from fluobook.stages.preflight import checks as preflight_checks

if TYPE_CHECKING:
    from fluobook.context import RunContext
    from fluobook.stages.core.check import Check

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(shared_labs):
    return shared_labs()


def checks(context: RunContext) -> list[Check]:
    return list(preflight.STAGE.verify(context, None))


def wrong(context: RunContext) -> list[Check]:
    return [check for check in checks(context) if not check.passed]


def only(context: RunContext) -> Check:
    (check,) = wrong(context)
    return check


def test_every_check_passes_in_a_fresh_lab_and_nothing_is_changed(lab):
    lab.mark()
    stage = lab.stage("preflight")
    plan = stage.plan()
    assert (plan.actions, plan.digest) == ((), "")
    assert stage.verify().ok
    assert lab.requests(mutating=True) == []


def test_its_plan_shows_what_the_topology_cannot_survive(lab):
    text = lab.stage("preflight").plan().table().text()
    assert "warning: talos-cp-1 is the only control plane" in text
    assert "warning: storage.replicas is 1" in text


def test_its_plan_sends_no_request(lab):
    lab.mark()
    lab.stage("preflight").plan()
    assert lab.requests() == []


@pytest.mark.parametrize("fault", ["proxmox.version-8", "proxmox.version-9-2"])
def test_all_checks_pass_on_every_version_of_proxmox_ve(labs, fault):
    assert wrong(labs(fault, phase="phase3").context()) == []


def test_a_proxmox_endpoint_receives_eight_requests_for_one_host(lab):
    lab.mark()
    checks(lab.context())
    assert sorted(path.split("/")[1] for path in lab.paths("GET")) == sorted(
        ["version", "access", "cluster", "cluster", "nodes", "nodes", "nodes", "nodes"]
    )


def test_the_table_is_the_same_in_every_fresh_lab(lab, labs):
    tables = [Checks("preflight", checks(world.context())).table().text() for world in (lab, labs())]
    assert tables[0] == tables[1]
    assert "127.0.0.1" not in tables[0]
    assert str(lab.folder) not in tables[0]


@pytest.mark.parametrize("cpu", ["x86-64-v2-AES", "x86-64-v3", "x86-64-v4"])
def test_a_cpu_type_without_what_scylladb_needs_fails(lab, cpu):
    check = only(lab.context(f"vm.cpu={cpu}"))
    assert check.name == "the CPU type of the VMs has what the workloads need: pclmulqdq (ScyllaDB)"
    assert check.result == f"{cpu} lacks pclmulqdq"
    assert "vm.cpu: host" in check.remedy


def test_a_host_whose_cpu_lacks_what_scylladb_needs_fails(labs):
    lab = labs()
    inventory = lab.environment.proxmox["laptop"].inventory
    inventory.hosts["pve1"] = replace(inventory.hosts["pve1"], cpu_features=frozenset({"sse4_2"}))
    check = only(lab.context())
    assert check.name == "the CPU of pve1 has what the workloads need: pclmulqdq (ScyllaDB)"
    assert check.result == "it lacks pclmulqdq"
    assert wrong(lab.context("vm.cpu=EPYC")) == []


def test_a_platform_that_leaves_scylladb_out_needs_no_cpu_feature(lab):
    results = checks(lab.context("vm.cpu=x86-64-v2-AES", "platform.gitops.without=[scylladb, scylla-operator]"))
    assert not [check for check in results if not check.passed or "CPU" in check.name]


def test_our_own_vms_are_accepted(labs):
    lab = labs()
    lab.bring_up("create-vms")
    results = {check.name: check.result for check in checks(lab.context())}
    assert "0 free, 3 ours" in results.values()
    assert "0 GiB of disks are planned" in results.values()


def test_each_missing_privilege_is_named_with_the_commands_that_grant_it(labs):
    context = labs("proxmox.token-no-rights").context()
    first = wrong(context)[0]
    assert "VM.Allocate on /vms" in first.result
    assert "SDN.Use on /sdn/zones/localnetwork/vmbr0" in first.result
    assert "pveum acl modify /vms --tokens 'fluobook@pve!fluobook'" in first.remedy
    assert "VM.GuestAgent.Audit" in first.remedy


def test_a_wrong_token_is_reported_once_and_the_other_checks_still_run(labs):
    context = labs("proxmox.token-wrong").context()
    results = checks(context)
    (refused,) = [check for check in results if not check.passed]
    assert "does not accept the token fluobook@pve!fluobook" in refused.result
    assert "pveum user token" in refused.remedy
    assert any("chart source" in check.name for check in results)


def test_an_unreachable_host_is_reported_with_the_next_command(lab):
    failed = only(lab.context(endpoints={"192.168.1.100:8006": "127.0.0.1:1"}))
    assert "does not answer at 192.168.1.100:8006" in failed.result
    assert "curl -k https://192.168.1.100:8006/" in failed.remedy


def test_a_certificate_of_another_authority_is_refused_with_its_fingerprint_to_compare(lab, tmp_path):
    ca = tmp_path / "other.pem"
    ca.write_text(pki.new_authority(organization="another").crt)
    failed = only(lab.context(trust={"192.168.1.100:8006": str(ca)}))
    assert "is not trusted" in failed.result
    assert "fingerprint" in failed.remedy


def test_a_missing_bridge_is_reported_with_the_existing_ones(lab):
    failed = only(lab.context("network.bridge=vmbr7"))
    assert (failed.name, failed.result) == ("pve1 has the bridge vmbr7", "listed: vmbr0")


def test_a_missing_storage_is_reported_with_those_that_accept_disks(lab):
    failed = only(lab.context("proxmox.laptop.disk_storage=tank"))
    assert failed.result == "listed: local, local-lvm"
    assert "proxmox[].disk_storage in the params to local-lvm" in failed.remedy


def test_a_storage_that_accepts_no_images_is_reported_with_the_command(lab):
    failed = only(lab.context("proxmox.laptop.image_storage=local-lvm"))
    assert failed.result == "it accepts images"
    assert failed.remedy.startswith("pvesm set local-lvm --content images,iso")


def test_a_full_storage_is_reported_with_free_and_planned_space(labs):
    context = labs("proxmox.storage-full").context()
    room = next(check for check in wrong(context) if "room" in check.name)
    assert "local-lvm has 0.0 GiB free, 220 GiB are planned" in room.result


@pytest.mark.parametrize(
    ("fault", "message"),
    [("proxmox.foreign-vmid", "has the number"), ("proxmox.foreign-vm-with-our-name", "has the name of talos-cp-1")],
)
def test_a_foreign_vm_in_our_place_is_named(labs, fault, message):
    failed = only(labs(fault).context())
    assert message in failed.result
    assert "nodes[].vmid" in failed.remedy


def test_an_address_in_use_is_named(labs):
    lab = labs()
    lab.bring_up("create-vms")
    # Another cluster's name makes other uuids: the VMs are then somebody else's, and answer at our addresses.
    context = lab.context("cluster.name=another")
    assert any("is not managed by fluobook" in check.result for check in wrong(context))


def test_a_host_that_does_not_exist_is_named(lab):
    results = wrong(lab.context("proxmox.laptop.hosts=[pve9]", *(f"nodes.{n.name}.host=pve9" for n in nodes(lab))))
    assert any("host pve9 is not there; known are pve1" in check.result for check in results)


def nodes(lab):
    return lab.chosen.platform.nodes


def test_a_talos_version_that_the_factory_lacks_is_reported_with_the_available_ones(lab):
    failed = only(lab.context('versions.talos="1.13.2"'))
    assert failed.result == f"it has {', '.join(version for version in VERSIONS if version.startswith('v1.13.'))}"


def test_an_extension_that_the_factory_lacks_is_named(labs):
    failed = only(labs("factory.extension-missing").context())
    assert failed.result == "missing: siderolabs/iscsi-tools"


def test_a_missing_revision_is_reported_with_the_branches(lab):
    failed = only(lab.context(gitops={"revision": "nowhere"}))
    assert "no branch or tag 'nowhere'; its branches are main" in failed.result


def test_unreachable_chart_sources_are_named_and_the_others_counted(lab):
    failed = only(lab.context(gitops={"mirrors": {"https://helm.cilium.io": "http://127.0.0.1:1"}}))
    assert failed.result.startswith("12 of 13; cilium: ")
    assert "mirrors" in failed.remedy


def test_a_chart_version_that_is_not_listed_is_named(lab):
    mirrors = lab.context().platform.gitops.mirrors
    other = {"https://helm.cilium.io": mirrors["https://charts.longhorn.io"]}
    failed = only(lab.context(gitops={"mirrors": other}))
    assert "has no chart cilium" in failed.result


def test_a_network_that_does_not_support_kubernetes_fails_and_others_are_named(lab):
    failed = only(lab.context('versions.kubernetes="1.37.0"'))
    assert failed.name == "network and storage of the tree support Kubernetes 1.37.0"
    assert "cilium 1.20.2: row cilium 1.20 of params/versions.yaml allows 1.33 to 1.36" in failed.result
    assert "ingress-nginx 1.15" in failed.result
    assert "versions.kubernetes" in failed.remedy
    assert wrong(lab.context('versions.kubernetes="1.36.2"')) == []


def test_an_age_key_that_decrypts_nothing_is_reported_with_the_files(lab, tmp_path):
    key = tmp_path / "keys.txt"
    key.write_text(age.generate().file())
    fits, opens = wrong(lab.context(secrets={"age_key": {"file": str(key)}}))
    assert "rule ^talos/secrets/" in fits.result
    assert "pg-credentials.sops.yaml" in fits.result
    assert "cannot be decrypted" in opens.result


def test_a_missing_age_key_is_reported_with_its_path(lab, tmp_path):
    failed = only(lab.context(secrets={"age_key": {"file": str(tmp_path / "keys.txt")}}))
    assert "no secret in file" in failed.result


def test_the_labs_age_key_is_refused_for_a_live_platform(lab):
    tree, key = wrong(replace(lab.context(), target="live"))
    assert "the lab's" in tree.result
    assert "is the lab's; it is public" in key.result
    assert "age-keygen" in key.remedy


def test_missing_programs_are_named(lab, monkeypatch):
    missing = [
        tool if tool.name != "helm" else replace(tool, version="", source="no helm 3.17 or newer")
        for tool in preflight_checks.inventory()
    ]
    monkeypatch.setattr(preflight_checks, "inventory", lambda: missing)
    assert only(lab.context()).result == "no helm 3.17 or newer"


def test_dhcp_reservations_are_written_for_every_kind_of_server(lab):
    context = lab.context("network.addressing=dhcp")
    (written,) = [check for check in checks(context) if "DHCP" in check.name]
    assert written.passed
    written_text = (context.home / "dhcp" / "dnsmasq.conf").read_text()
    assert all(f"{node.mac},{node.address},{node.name}" in written_text for node in context.platform.nodes)
    assert {path.stem for path in (context.home / "dhcp").iterdir()} == {"dnsmasq", "isc", "kea", "routeros"}


def test_a_failed_preflight_ends_with_exit_code_4_and_every_remedy(lab):
    stage = lab.stage("preflight", context=lab.context("network.bridge=vmbr7", "proxmox.laptop.disk_storage=tank"))
    with pytest.raises(CheckFailed) as raised:
        stage.verify()
    assert raised.value.exit_code == 4
    assert "network.bridge" in raised.value.remedy
    assert "disk_storage" in raised.value.remedy


def test_all_of_three_hosts_are_checked(labs):
    context = labs(phase="phase3").context()
    results = checks(context)
    assert [check for check in results if not check.passed] == []
    for host in context.platform.hosts:
        assert sum(check.name.startswith(f"{host} has") for check in results) >= 3
