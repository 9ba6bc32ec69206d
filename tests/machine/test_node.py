"""What our own nodes get by contract 1.13, with the patches of the tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook.errors import ParamsError
from fluobook.machine import Documents, generate
from fluobook.machine.documents import dump, load
from fluobook.machine.node import node_documents
from fluobook.params import overlay, parse

if TYPE_CHECKING:
    from fluobook.machine.secrets import SecretsBundle
    from fluobook.params import Node, Platform

Problems = Callable[[dict[str, Any]], list[str]]

PATCHES = Path(__file__).parents[2] / "talos" / "patches"
PLATFORM = parse(
    yaml.safe_load("""
phase: phase3
platform:
  versions: {contract: "1.13"}
  cluster: {name: harbour, pod_cidr: "10.11.0.0/16", service_cidr: "10.12.0.0/16", api_address: "192.0.2.9"}
  network:
    cidr: "192.0.2.0/24"
    gateway: "192.0.2.1"
    nameservers: ["192.0.2.1", "9.9.9.9"]
    ntp: [ntp.example.net]
  proxmox:
    - name: quay
      url: "https://192.0.2.2:8006"
      token_id: "fluobook@pve!fluobook"
      token_secret: {env: TOKEN}
      hosts: [pve1, pve2]
  nodes:
    - {name: quay-1, role: controlplane, host: pve1, mac: "BC:24:11:0A:0B:0C", address: "192.0.2.10", cores: 2, memory_gib: 4, boot_disk_gib: 20}
    - {name: quay-2, role: controlplane, host: pve1, address: "192.0.2.11", cores: 2, memory_gib: 4, boot_disk_gib: 20}
    - {name: quay-3, role: controlplane, host: pve2, address: "192.0.2.12", cores: 2, memory_gib: 4, boot_disk_gib: 20}
    - {name: crane-1, role: worker, host: pve2, mac: "BC:24:11:0A:0B:0D", address: "192.0.2.20", cores: 2, memory_gib: 4, boot_disk_gib: 20, data_disk_gib: 80}
  gitops: {repository: "https://git.example.net/harbour.git", domain: harbour.example.net, acme_email: ops@example.net}
""")  # noqa: E501 (a node in one line)
).platform
CONTROLPLANE, WORKER = PLATFORM.node("quay-1"), PLATFORM.node("crane-1")
OTHER = overlay(PLATFORM, {"network": {"vip": "192.0.2.5", "mtu": 1370, "addressing": "dhcp"}})


@pytest.fixture(scope="module")
def generated(secrets: SecretsBundle) -> Documents:
    return generate("harbour", "https://192.0.2.9:6443", "1.35.2", secrets)


def _node(generated: Documents, node: Node, platform: Platform = PLATFORM, **more: Any) -> list[dict[str, Any]]:
    patches = [(PATCHES / name).read_text() for name in ("common.yaml", f"{node.role}.yaml")]
    return node_documents(generated, platform, node, patches=patches, **more)


def _of(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(document for document in documents if document.get("kind") == kind)


def _kinds(documents: list[dict[str, Any]]) -> list[str]:
    return [document.get("kind", "") for document in documents]


@pytest.mark.parametrize("platform", [PLATFORM, OTHER], ids=["plain", "vip, mtu, dhcp"])
@pytest.mark.parametrize("node", [CONTROLPLANE, WORKER], ids=["controlplane", "worker"])
def test_every_document_of_a_node_is_valid_by_talos_own_schema(
    generated: Documents, node: Node, platform: Platform, problems_by_schema: Problems
) -> None:
    manifests = {"cilium": "---\nkind: List\n"}
    for document in _node(generated, node, platform, cert_sans=["127.0.0.1"], inline_manifests=manifests):
        assert problems_by_schema(document) == []


def test_a_plain_worker_has_exactly_these_documents(generated: Documents) -> None:
    assert _kinds(_node(generated, WORKER)) == [
        "",
        "HostnameConfig",
        "ResolverConfig",
        "TimeSyncConfig",
        "UserVolumeConfig",
    ]


def test_the_host_name_is_ours_and_not_talos(generated: Documents) -> None:
    assert _of(_node(generated, WORKER), "HostnameConfig") == {
        "apiVersion": "v1alpha1",
        "kind": "HostnameConfig",
        "auto": "off",
        "hostname": "crane-1",
    }


def test_name_and_time_servers_come_from_the_params(generated: Documents) -> None:
    documents = _node(generated, WORKER)
    assert _of(documents, "ResolverConfig")["nameservers"] == [{"address": "192.0.2.1"}, {"address": "9.9.9.9"}]
    assert _of(documents, "TimeSyncConfig")["ntp"] == {"servers": ["ntp.example.net"]}


def test_cilium_is_the_network_and_kube_proxy_is_not_there(generated: Documents) -> None:
    for node in (CONTROLPLANE, WORKER):
        network = _node(generated, node)[0]["cluster"]["network"]
        assert network["cni"] == {"name": "none"}
        assert (network["podSubnets"], network["serviceSubnets"]) == (["10.11.0.0/16"], ["10.12.0.0/16"])
    assert _node(generated, CONTROLPLANE)[0]["cluster"]["proxy"]["disabled"] is True


def test_kubelets_ask_for_serving_certificates_and_keep_to_the_nodes_network(generated: Documents) -> None:
    kubelet = _node(generated, WORKER)[0]["machine"]["kubelet"]
    assert kubelet["extraArgs"] == {"rotate-server-certificates": "true"}
    assert kubelet["nodeIP"] == {"validSubnets": ["192.0.2.0/24"]}


def test_scylla_gets_its_asynchronous_io(generated: Documents) -> None:
    assert int(_node(generated, WORKER)[0]["machine"]["sysctls"]["fs.aio-max-nr"]) >= 1_048_576


def test_longhorn_gets_its_kernel_module(generated: Documents) -> None:
    assert {"name": "iscsi_tcp"} in _node(generated, WORKER)[0]["machine"]["kernel"]["modules"]


def test_a_control_plane_brings_the_inline_manifests_and_a_worker_does_not(generated: Documents) -> None:
    manifests = {"cilium": "---\nkind: DaemonSet\n"}
    cluster = _node(generated, CONTROLPLANE, inline_manifests=manifests)[0]["cluster"]
    assert cluster["inlineManifests"] == [{"name": "cilium", "contents": "---\nkind: DaemonSet\n"}]
    assert "inlineManifests" not in _node(generated, WORKER, inline_manifests=manifests)[0]["cluster"]


def test_etcd_advertises_the_nodes_network(generated: Documents) -> None:
    cluster = _node(generated, CONTROLPLANE)[0]["cluster"]
    assert cluster["etcd"]["advertisedSubnets"] == ["192.0.2.0/24"]
    assert "etcd" not in _node(generated, WORKER)[0]["cluster"]


def test_mapped_addresses_are_in_both_certificates(generated: Documents) -> None:
    document = _node(generated, CONTROLPLANE, cert_sans=["127.0.0.1", "192.0.2.5"])[0]
    assert document["machine"]["certSANs"] == ["127.0.0.1", "192.0.2.5"]
    assert document["cluster"]["apiServer"]["certSANs"] == ["127.0.0.1", "192.0.2.5"]
    assert _node(generated, WORKER, cert_sans=["127.0.0.1"])[0]["machine"]["certSANs"] == ["127.0.0.1"]


def test_without_mapped_addresses_the_documents_have_none(generated: Documents) -> None:
    document = _node(generated, CONTROLPLANE)[0]
    assert document["machine"]["certSANs"] == []
    assert "certSANs" not in document["cluster"]["apiServer"]


def test_the_host_is_the_failure_domain(generated: Documents) -> None:
    labels = _node(generated, WORKER)[0]["machine"]["nodeLabels"]
    assert labels == {"topology.kubernetes.io/zone": "pve2", "node.longhorn.io/create-default-disk": "true"}
    assert "node.longhorn.io/create-default-disk" not in _node(generated, CONTROLPLANE)[0]["machine"]["nodeLabels"]


def test_labels_of_a_node_are_added_and_taints_are_set_when_it_registers(generated: Documents) -> None:
    changes = {"labels": {"example.org/rack": "r4"}, "taints": {"dedicated": "db:NoSchedule", "slow": "NoExecute"}}
    node = {"name": "crane-2", "role": "worker", "host": "pve1", "address": "192.0.2.21", "data_disk_gib": 80}
    sizes = {"cores": 2, "memory_gib": 4, "boot_disk_gib": 20}
    platform = overlay(PLATFORM, {"nodes": [{**node, **sizes, **changes}]})
    machine = _node(generated, platform.node("crane-2"), platform)[0]["machine"]
    assert machine["nodeLabels"]["example.org/rack"] == "r4"
    assert machine["kubelet"]["extraConfig"]["registerWithTaints"] == [
        {"key": "dedicated", "value": "db", "effect": "NoSchedule"},
        {"key": "slow", "effect": "NoExecute"},
    ]
    assert "nodeTaints" not in machine


def test_no_worker_label_is_set_that_kubernetes_would_refuse(generated: Documents) -> None:
    labels = _node(generated, WORKER)[0]["machine"]["nodeLabels"]
    assert not [label for label in labels if label.startswith("node-role.kubernetes.io/")]


def test_the_data_disk_becomes_a_volume_that_is_not_the_system_disk(generated: Documents) -> None:
    volume = _of(_node(generated, WORKER), "UserVolumeConfig")
    assert volume["name"] == "longhorn"
    match = '!system_disk && glob("*/virtio*/host*/target*:0:0/*:0:0:1", disk.bus_path)'
    assert volume["provisioning"]["diskSelector"]["match"] == match
    smallest = int(volume["provisioning"]["minSize"].removesuffix("MiB"))
    assert 70 * 1024 < smallest < 80 * 1024


def test_talos_is_installed_on_the_first_drive_whatever_its_kernel_name(generated: Documents) -> None:
    install = _node(generated, CONTROLPLANE)[0]["machine"]["install"]
    assert install["diskSelector"] == {"busPath": "*/virtio*/host*/target*:0:0/*:0:0:0"}
    assert "disk" not in install


def test_a_path_in_the_params_replaces_the_bus_path(generated: Documents) -> None:
    documents = _node(generated, WORKER, overlay(PLATFORM, {"vm": {"install_disk": "/dev/vda"}}))
    install = documents[0]["machine"]["install"]
    assert (install["disk"], install.get("diskSelector")) == ("/dev/vda", None)
    match = _of(documents, "UserVolumeConfig")["provisioning"]["diskSelector"]["match"]
    assert match == "!system_disk && !disk.readonly && !disk.cdrom"


def test_a_node_without_a_data_disk_has_no_volume(generated: Documents) -> None:
    assert "UserVolumeConfig" not in _kinds(_node(generated, CONTROLPLANE))


def test_the_vip_is_on_control_planes_alone_and_on_the_interface_with_our_mac(generated: Documents) -> None:
    documents = _node(generated, CONTROLPLANE, OTHER)
    vip, alias = _of(documents, "Layer2VIPConfig"), _of(documents, "LinkAliasConfig")
    assert (vip["name"], vip["link"]) == ("192.0.2.5", alias["name"])
    assert '"bc:24:11:0a:0b:0c"' in alias["selector"]["match"]
    assert "Layer2VIPConfig" not in _kinds(_node(generated, WORKER, OTHER))


def test_a_mtu_of_our_own_does_not_cost_the_address(generated: Documents) -> None:
    documents = _node(generated, WORKER, OTHER)
    assert _of(documents, "LinkConfig")["mtu"] == 1370
    assert _of(documents, "DHCPv4Config")["name"] == _of(documents, "LinkConfig")["name"]
    static = overlay(OTHER, {"network": {"addressing": "static"}})
    assert "DHCPv4Config" not in _kinds(_node(generated, WORKER, static))


def test_patches_have_the_last_word(generated: Documents) -> None:
    patch = "machine: {nodeLabels: {topology.kubernetes.io/zone: rack-9}}"
    document = node_documents(generated, PLATFORM, WORKER, patches=[patch])[0]
    assert document["machine"]["nodeLabels"]["topology.kubernetes.io/zone"] == "rack-9"


def test_a_patch_that_does_not_fit_is_refused(generated: Documents) -> None:
    with pytest.raises(ParamsError):
        node_documents(generated, PLATFORM, WORKER, patches=["machine: {certSANs: {a: b}}"])


def test_what_was_generated_is_left_as_it_was(generated: Documents, secrets: SecretsBundle) -> None:
    _node(generated, CONTROLPLANE, OTHER, cert_sans=["x"], inline_manifests={"a": "b"})
    assert generated == generate("harbour", "https://192.0.2.9:6443", "1.35.2", secrets)


def test_the_text_means_the_same_to_every_reader(generated: Documents) -> None:
    documents = _node(generated, CONTROLPLANE, OTHER, inline_manifests={"cilium": "---\na: off\n---\nb: 0o17\n"})
    assert load(dump(documents)) == list(yaml.safe_load_all(dump(documents))) == documents


@pytest.mark.parametrize("name", ["common.yaml", "controlplane.yaml", "worker.yaml"])
def test_a_patch_in_the_tree_means_the_same_to_every_reader(name: str) -> None:
    text = (PATCHES / name).read_text()
    assert load(text) == list(yaml.safe_load_all(text))
