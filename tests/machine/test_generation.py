"""Machine configurations: what control planes and workers get, and above all what workers do not get."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import fluobook.machine
from fluobook.errors import ParamsError
from fluobook.machine import Documents, generate, merge
from fluobook.machine.documents import dump, load

if TYPE_CHECKING:
    from fluobook.machine.secrets import SecretsBundle

Problems = Callable[[dict[str, Any]], list[str]]


@pytest.fixture(scope="module")
def documents(secrets: SecretsBundle) -> Documents:
    return generate("harbour", "https://192.0.2.9:6443", "1.35.2", secrets, "/dev/sda")


@pytest.fixture(scope="module")
def everything(secrets: SecretsBundle) -> Documents:
    """What other options of `talosctl gen config` would add, as patches."""
    generated = generate(
        "harbour",
        "https://api.example.net:6443",
        "v1.35.2",
        secrets,
        "/dev/nvme0n1",
        install_image="registry.example.net/installer:v1.13.9",
    )
    sans = ["api.example.net", "192.0.2.200"]
    both = f"""
        machine:
          install: {{extraKernelArgs: [console=ttyS0]}}
          certSANs: {sans}
          sysctls: {{vm.swappiness: "10"}}
        cluster:
          network:
            cni: {{name: none}}
            dnsDomain: harbour.local
            podSubnets: [10.1.0.0/16, "fd00:1::/56"]
            serviceSubnets: [10.2.0.0/16]
    """
    control_planes = f"""
        cluster:
          apiServer: {{certSANs: {sans}}}
          controlPlane: {{localAPIServerPort: 7443}}
          allowSchedulingOnControlPlanes: true
    """
    mirrors = [
        {
            "apiVersion": "v1alpha1",
            "kind": "RegistryMirrorConfig",
            "name": name,
            "endpoints": [{"url": f"https://mirror.example.net{path}"}],
        }
        for name, path in (("docker.io", ""), ("quay.io", "/quay"))
    ]
    of_both = [merge(merge(generated.of(role), both), mirrors) for role in ("controlplane", "worker")]
    return Documents(merge(of_both[0], control_planes), of_both[1])


@pytest.mark.parametrize("role", ["controlplane", "worker"])
def test_every_document_is_valid_by_talos_own_schema(
    documents: Documents, everything: Documents, role: str, problems_by_schema: Problems
) -> None:
    for document in copy.deepcopy([*documents.of(role), *everything.of(role)]):
        # These are in what talosctl generates, but not in the schema that Talos publishes: they are deprecated.
        document.pop("persist", None)
        document.get("machine", {}).get("install", {}).pop("extraKernelArgs", None)
        assert problems_by_schema(document) == []


def test_the_schema_does_refuse_what_is_wrong(documents: Documents, problems_by_schema: Problems) -> None:
    broken = copy.deepcopy(documents.worker[0])
    broken["machine"]["kubelet"]["imagee"] = "typo"
    broken["cluster"]["network"]["podSubnets"] = "10.0.0.0/8"
    del broken["persist"]
    assert len(problems_by_schema(broken)) == 2


def test_a_worker_gets_exactly_this(documents: Documents, secrets: SecretsBundle) -> None:
    expected = yaml.safe_load(f"""
        version: v1alpha1
        debug: false
        persist: true
        machine:
          type: worker
          token: {secrets.trustd_token}
          ca: {{crt: {secrets.talos.to_base64()["crt"]}, key: ""}}
          certSANs: []
          kubelet:
            image: ghcr.io/siderolabs/kubelet:v1.35.2
            defaultRuntimeSeccompProfileEnabled: true
            disableManifestsDirectory: true
          install: {{disk: /dev/sda, wipe: false, grubUseUKICmdline: true}}
          features:
            diskQuotaSupport: true
            kubePrism: {{enabled: true, port: 7445}}
            hostDNS: {{enabled: true, forwardKubeDNSToHost: true}}
        cluster:
          id: {secrets.cluster_id}
          secret: {secrets.cluster_secret}
          controlPlane: {{endpoint: "https://192.0.2.9:6443"}}
          clusterName: harbour
          network:
            dnsDomain: cluster.local
            podSubnets: [10.244.0.0/16]
            serviceSubnets: [10.96.0.0/12]
          token: {secrets.bootstrap_token}
          ca: {{crt: {secrets.kubernetes.to_base64()["crt"]}, key: ""}}
          discovery: {{enabled: true, registries: {{kubernetes: {{disabled: true}}, service: {{}}}}}}
    """)
    hostname = {"apiVersion": "v1alpha1", "kind": "HostnameConfig", "auto": "stable"}
    assert documents.worker == [expected, hostname]


def test_a_worker_has_no_private_key(documents: Documents, secrets: SecretsBundle) -> None:
    text = dump(documents.worker)
    keys = [secrets.talos, secrets.kubernetes, secrets.etcd, secrets.aggregator]
    assert [pair.to_base64()["key"] for pair in keys if pair.to_base64()["key"] in text] == []
    assert secrets.secretbox_encryption_secret not in text
    assert "PRIVATE KEY" not in text


def test_a_control_plane_has_all_authorities(documents: Documents, secrets: SecretsBundle) -> None:
    machine, cluster = documents.controlplane[0]["machine"], documents.controlplane[0]["cluster"]
    assert machine["ca"] == secrets.talos.to_base64()
    assert cluster["ca"] == secrets.kubernetes.to_base64()
    assert cluster["aggregatorCA"] == secrets.aggregator.to_base64()
    assert cluster["etcd"]["ca"] == secrets.etcd.to_base64()
    assert cluster["serviceAccount"] == secrets.as_mapping()["certs"]["k8sserviceaccount"]
    assert cluster["secretboxEncryptionSecret"] == secrets.secretbox_encryption_secret


def test_a_control_plane_runs_the_requested_kubernetes(documents: Documents) -> None:
    cluster = documents.controlplane[0]["cluster"]
    components = ["apiServer", "controllerManager", "proxy", "scheduler"]
    names = ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"]
    assert [cluster[each]["image"] for each in components] == [f"registry.k8s.io/{name}:v1.35.2" for name in names]


def test_without_a_kubernetes_version_the_images_are_left_to_talos(secrets: SecretsBundle) -> None:
    machine = generate("harbour", "https://192.0.2.9:6443", "", secrets).controlplane[0]
    assert "image" not in machine["machine"]["kubelet"]
    assert machine["cluster"]["scheduler"] == {}


def test_every_option_is_applied(everything: Documents) -> None:
    machine, cluster = everything.controlplane[0]["machine"], everything.controlplane[0]["cluster"]
    assert machine["install"] == {
        "disk": "/dev/nvme0n1",
        "image": "registry.example.net/installer:v1.13.9",
        "extraKernelArgs": ["console=ttyS0"],
        "wipe": False,
        "grubUseUKICmdline": True,
    }
    assert machine["certSANs"] == cluster["apiServer"]["certSANs"] == ["api.example.net", "192.0.2.200"]
    assert machine["sysctls"] == {"vm.swappiness": "10"}
    assert cluster["network"] == {
        "cni": {"name": "none"},
        "dnsDomain": "harbour.local",
        "podSubnets": ["10.1.0.0/16", "fd00:1::/56"],
        "serviceSubnets": ["10.2.0.0/16"],
    }
    assert cluster["controlPlane"] == {"endpoint": "https://api.example.net:6443", "localAPIServerPort": 7443}
    assert cluster["allowSchedulingOnControlPlanes"] is True
    mirrors = [(each["name"], each["endpoints"][0]["url"]) for each in everything.worker[2:]]
    assert mirrors == [("docker.io", "https://mirror.example.net"), ("quay.io", "https://mirror.example.net/quay")]
    assert "allowSchedulingOnControlPlanes" not in everything.worker[0]["cluster"]


def test_the_same_arguments_give_the_same_documents(documents: Documents, secrets: SecretsBundle) -> None:
    again = generate("harbour", "https://192.0.2.9:6443", "1.35.2", secrets.as_mapping(), "/dev/sda")
    assert again == documents


def test_changing_one_result_changes_no_other(secrets: SecretsBundle) -> None:
    first = generate("harbour", "https://192.0.2.9:6443", "1.35.2", secrets)
    first.controlplane[0]["cluster"]["apiServer"]["admissionControl"][0]["configuration"]["defaults"].clear()
    first.controlplane[0]["machine"]["certSANs"].append("x")
    assert first.worker[0]["machine"]["certSANs"] == []
    second = generate("harbour", "https://192.0.2.9:6443", "1.35.2", secrets)
    assert second.controlplane[0]["cluster"]["apiServer"]["admissionControl"][0]["configuration"]["defaults"]


def test_an_incomplete_bundle_is_refused(secrets: SecretsBundle) -> None:
    bundle = secrets.as_mapping()
    del bundle["trustdinfo"]
    with pytest.raises(ParamsError, match="bundle"):
        generate("harbour", "https://192.0.2.9:6443", "1.35.2", bundle)


def test_secrets_are_not_in_the_repr(documents: Documents, secrets: SecretsBundle) -> None:
    assert secrets.cluster_secret not in repr(documents)


def test_the_text_means_the_same_to_every_reader(everything: Documents) -> None:
    text = dump(everything.controlplane)
    assert load(text) == list(yaml.safe_load_all(text)) == everything.controlplane


def test_the_package_offers_generate_and_merge() -> None:
    assert set(fluobook.machine.__all__) == {"Documents", "generate", "merge"}
    assert Path(fluobook.machine.__file__ or "").name == "__init__.py"
