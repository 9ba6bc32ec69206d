"""Version contracts: what is where in a configuration of Talos 1.14, and what it amounts to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fluobook.errors import ParamsError
from fluobook.machine import contracts, generate, merge
from fluobook.machine.documents import dump, load
from fluobook.machine.pki import decode_pem
from fluobook.machine.validation import decoding_problem, refusals
from fluobook.params.versions import CONTRACTS

if TYPE_CHECKING:
    from fluobook.machine.generation import Documents
    from fluobook.machine.secrets import SecretsBundle

OF_ALL = [
    *[
        "",
        "DiscoveryServiceConfig",
        "DiscoveryIdentityConfig",
        "ResolverConfig",
        "VolumeConfig",
        "FilesystemTrimConfig",
    ],
    *["SecurityProfileConfig", "HostnameConfig", "KubeClusterConfig", "KubeNodeConfig", "KubeletConfig"],
    *["KubeNetworkConfig", "KubeAPIServerCAConfig", "KubePrismConfig"],
]
OF_CONTROL_PLANES = [
    *["KubeAggregatorCAConfig", "KubeAdmissionControlConfig", "KubeAuditPolicyConfig", "KubeAuthenticationConfig"],
    *["KubeAuthorizerConfig", "KubeAuthorizerConfig", "KubeEtcdEncryptionConfig", "KubeServiceAccountConfig"],
    *["KubeAPIServerConfig", "KubeControllerManagerConfig", "KubeSchedulerConfig", "KubeProxyConfig"],
    *["KubeFlannelCNIConfig", "KubeCoreDNSConfig"],
]


def generated(secrets: SecretsBundle, contract: str, **more: Any) -> Documents:
    return generate("harbour", "https://192.0.2.9:6443", "1.35.2", secrets, contract=contract, **more)


@pytest.fixture(scope="module")
def newest(secrets: SecretsBundle) -> Documents:
    image = "factory.example.net/nocloud-installer/a:v1.14.1"
    return generated(secrets, "1.14", install_disk="/dev/vda", install_image=image)


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(document for document in documents if document.get("kind", "") == kind)


def test_by_contract_1_14_each_part_of_kubernetes_has_a_document(secrets: SecretsBundle) -> None:
    documents = generated(secrets, "1.14")
    kinds = {role: [each.get("kind", "") for each in documents.of(role)] for role in ("controlplane", "worker")}
    assert kinds == {"controlplane": [*OF_ALL, *OF_CONTROL_PLANES], "worker": OF_ALL}


@pytest.mark.parametrize("role", ["controlplane", "worker"])
@pytest.mark.parametrize(
    ("contract", "talos"), [("1.12", "1.13"), ("1.13", "1.13"), ("1.13", "1.14"), ("1.14", "1.14")]
)
def test_talos_accepts_contracts_up_to_its_own_version(
    secrets: SecretsBundle, role: str, contract: str, talos: str
) -> None:
    documents = load(dump(generated(secrets, contract, install_disk="/dev/vda").of(role)))
    assert [problem for each in documents if (problem := decoding_problem(each, talos))] == []
    assert refusals(documents, talos) == []


def test_talos_1_13_does_not_know_the_documents_of_1_14(newest: Documents) -> None:
    problems = [decoding_problem(each, "v1.13.9") for each in newest.worker]
    assert '"KubeClusterConfig" "v1alpha1": not registered' in problems
    assert (
        "unknown keys found during decoding:\nhostDNS:\n    enabled: true\n    forwardKubeDNSToHost: true\n" in problems
    )


def test_a_contract_that_nobody_knows_is_refused(secrets: SecretsBundle) -> None:
    with pytest.raises(ParamsError, match=r"no version contract 1\.15; known are 1\.12, 1\.13, 1\.14"):
        generated(secrets, "1.15")


def test_a_worker_of_1_14_has_no_key_and_no_secret_of_the_control_plane(
    newest: Documents, secrets: SecretsBundle
) -> None:
    text = dump(newest.worker)
    assert of_kind(newest.worker, "KubeAPIServerCAConfig") == {
        "apiVersion": "v1alpha1",
        "kind": "KubeAPIServerCAConfig",
        "acceptedCAs": [secrets.kubernetes.crt],
    }
    assert "PRIVATE KEY" not in text
    assert secrets.secretbox_encryption_secret not in text


def test_old_secrets_in_etcd_are_read_by_the_name_of_the_key(newest: Documents, secrets: SecretsBundle) -> None:
    (resource,) = of_kind(newest.controlplane, "KubeEtcdEncryptionConfig")["config"]["resources"]
    assert resource["providers"] == [
        {"secretbox": {"keys": [{"name": "key2", "secret": secrets.secretbox_encryption_secret}]}}
    ]


@pytest.mark.parametrize("role", ["controlplane", "worker"])
def test_both_contracts_amount_to_the_same_cluster(secrets: SecretsBundle, newest: Documents, role: str) -> None:
    before, after = contracts.fold(generated(secrets, "1.13").of(role)), contracts.fold(newest.of(role))
    places = [
        *["machine.token", "machine.ca", "machine.kubelet.image", "cluster.id", "cluster.secret", "cluster.token"],
        *["cluster.ca", "cluster.clusterName", "cluster.controlPlane.endpoint", "cluster.network.podSubnets"],
        *["cluster.aggregatorCA", "cluster.etcd.ca", "cluster.serviceAccount.key", "cluster.secretboxEncryptionSecret"],
        *["cluster.apiServer.image", "cluster.apiServer.admissionControl", "cluster.scheduler.image"],
        *["machine.features.kubePrism", "machine.features.hostDNS.enabled"],
    ]
    for place in places:
        assert contracts.value_at(after, place) == contracts.value_at(before, place), place


def test_the_key_of_service_accounts_is_pem_in_its_document(newest: Documents, secrets: SecretsBundle) -> None:
    issuer = of_kind(newest.controlplane, "KubeServiceAccountConfig")["issuer"]
    assert issuer == {"privateKey": secrets.service_account_key, "issuerURL": "https://192.0.2.9:6443"}
    folded = contracts.fold(newest.controlplane)
    assert decode_pem(folded["cluster"]["serviceAccount"]["key"]) == secrets.service_account_key


SELECTED = {
    'disk.dev_path == "/dev/vda"': {"disk": "/dev/vda"},
    'glob("*/virtio0/*", disk.bus_path)': {"diskSelector": {"busPath": "*/virtio0/*"}},
    "disk.size > 10u * GB": {},
}


@pytest.mark.parametrize(("match", "install"), SELECTED.items())
def test_the_disk_of_an_installation_is_named_by_an_expression(match: str, install: dict[str, Any]) -> None:
    document = {"kind": "UnattendedInstallConfig", "provisioning": {"diskSelector": {"match": match}}}
    assert contracts.fold([document]).get("machine", {}).get("install", {}) == install
    if install:
        split = of_kind(contracts.split({"machine": {"install": install}}), "UnattendedInstallConfig")
        assert split["provisioning"] == {"diskSelector": {"match": match}, "wipe": False}


def test_what_has_no_document_of_its_own_stays_where_it_was() -> None:
    main = {"machine": {"certSANs": ["a"]}, "cluster": {"etcd": {"advertisedSubnets": ["192.0.2.0/24"]}}}
    assert contracts.split(main) == [main]


REFUSED = {
    "cluster: {network: {cni: {name: none}}}": "cluster network config is already set in the v1alpha1 config",
    "cluster: {clusterName: other}": "cluster name is already set in the v1alpha1 config (.cluster.clusterName)",
    "cluster: {controlPlane: {endpoint: 'https://192.0.2.9:6443'}}": "cluster endpoint is already set",
    "cluster: {allowSchedulingOnControlPlanes: true}": ".cluster.allowSchedulingOnControlPlanes is already set",
    "cluster: {proxy: {disabled: true}}": "can't be used with KubeProxyConfig document",
    "cluster: {apiServer: {certSANs: [a]}}": "kube-apiserver config is already set in v1alpha1 config",
    "cluster: {id: a}": "cluster identity is already configured in .cluster.id/.cluster.secret",
    "machine: {kubelet: {extraArgs: {v: '4'}}}": "kubelet config is already set in v1alpha1 config (.machine.kubelet)",
    "machine: {nodeLabels: {a: b}}": ".machine.nodeLabels is already set in v1alpha1 config",
    "machine: {install: {disk: /dev/sda}}": "UnattendedInstallConfig config is incompatible with v1alpha1 config",
    "machine: {features: {kubePrism: {enabled: true}}}": "can't be used with KubePrismConfig document",
    "{apiVersion: v1alpha1, kind: KubeProxyConfig, mode: fast}": 'invalid proxy mode "fast"',
    "{apiVersion: v1alpha1, kind: KubeletConfig, config: {port: 1}}": 'field "port" can\'t be overridden',
    "{apiVersion: v1alpha1, kind: KubeNodeConfig, nodeIP: {validSubnets: [a]}}": 'nodeIP subnet is not valid: "a"',
    "{apiVersion: v1alpha1, kind: KubeNodeConfig, labels: {'a b': c}}": "invalid node labels: ",
    "{apiVersion: v1alpha1, kind: KubeNodeConfig, taints: {a: 'b:Never'}}": "invalid node taints: invalid taint effect",
    "{apiVersion: v1alpha1, kind: KubeNetworkConfig, podSubnets: [10.0.0.0/16, 'fd00::/64']}": "number of pod subnets",
    "{apiVersion: v1alpha1, kind: KubeAPIServerConfig, extraArgs: {oidc-a: b}}": "use KubeAuthenticationConfig",
    "{apiVersion: v1alpha1, kind: KubeAPIServerConfig, image: a/b}": "kube-apiserver image is not valid",
    "{apiVersion: v1alpha1, kind: KubeAuthorizerConfig, name: a, type: Maybe}": "authorizer type Maybe is not allowed",
    "{apiVersion: v1alpha1, kind: KubeSchedulerConfig, resources: {limits: {gpu: 1}}}": 'pod resource "gpu"',
    "{apiVersion: v1alpha1, kind: KubeAPIServerConfig, resources: {request: {cpu: 1}}}": "unknown keys found during",
    "{apiVersion: v1alpha1, kind: KubeAPIServerConfig, resources: {requests: [cpu]}}": "requests: cannot unmarshal",
    "{apiVersion: v1alpha1, kind: KubePrismConfig, port: 70000}": "must be in range 1-65535",
    "{apiVersion: v1alpha1, kind: KubeInlineManifestConfig, name: A_b, manifest: ''}": "manifest name is invalid",
    "{apiVersion: v1alpha1, kind: DiscoveryIdentityConfig, $patch: delete}": "DiscoveryIdentityConfig) should be set",
    "{apiVersion: v1alpha1, kind: KubeEtcdEncryptionConfig, $patch: delete}": "etcd encryption config is required",
    "{apiVersion: v1alpha1, kind: UnattendedInstallConfig, provisioning: {diskSelector: {match: disk.sizes > 1u}}}": (
        "provisioning.volumeSelector.match is invalid"
    ),
    "{apiVersion: v1alpha1, kind: KubeNodeConfig, label: {a: b}}": "unknown keys found during decoding:\nlabel:",
    "{apiVersion: v1alpha1, kind: KubeNodesConfig}": '"KubeNodesConfig" "v1alpha1": not registered',
}


@pytest.mark.parametrize(("patch", "message"), REFUSED.items())
def test_talos_1_14_refuses(newest: Documents, patch: str, message: str) -> None:
    documents = merge(newest.controlplane, patch)
    undecodable = [problem for each in documents if (problem := decoding_problem(each, "1.14"))]
    problems = undecodable or [str(refusal) for refusal in refusals(documents, "1.14")]
    assert message in problems[0]


def test_documents_of_control_planes_are_refused_on_workers(newest: Documents) -> None:
    kinds = ("KubeFlannelCNIConfig", "KubeCoreDNSConfig")
    documents = [*newest.worker, *(of_kind(newest.controlplane, kind) for kind in kinds)]
    (refusal,) = refusals(documents, "1.14")
    reason = "the following document kinds are only allowed on control plane machines"
    assert str(refusal) == f"{reason}: [KubeCoreDNSConfig KubeFlannelCNIConfig]"


MERGED: dict[str, dict[str, Any]] = {
    "{apiVersion: v1alpha1, kind: KubeNetworkConfig, podSubnets: [10.1.0.0/16]}": {"podSubnets": ["10.1.0.0/16"]},
    "{apiVersion: v1alpha1, kind: KubeletConfig, extraArgs: {v: '4'}}": {"extraArgs": {"v": "4"}},
    "{apiVersion: v1alpha1, kind: KubeletConfig, clusterDNS: [192.0.2.3]}": {"clusterDNS": ["192.0.2.3"]},
    "{apiVersion: v1alpha1, kind: KubeAuditPolicyConfig, configuration: {kind: Policy}}": {
        "configuration": {"kind": "Policy"}
    },
    "{apiVersion: v1alpha1, kind: KubeClusterConfig, endpoint: 'https://api.example.net:6443'}": {
        "endpoint": "https://api.example.net:6443"
    },
}


@pytest.mark.parametrize(("patch", "fields"), MERGED.items())
def test_documents_of_1_14_merge_as_in_talos(newest: Documents, patch: str, fields: dict[str, Any]) -> None:
    ((kind, key),) = ((load(patch)[0]["kind"], key) for key in fields)
    assert of_kind(merge(newest.controlplane, patch), kind)[key] == fields[key]


def test_a_taint_is_deleted_by_its_key(newest: Documents) -> None:
    taints = "{node-role.kubernetes.io/control-plane: {$patch: delete}}"
    patch = f"{{apiVersion: v1alpha1, kind: KubeNodeConfig, taints: {taints}}}"
    assert "taints" not in of_kind(merge(newest.controlplane, patch), "KubeNodeConfig")


def test_the_contracts_of_the_params_are_those_that_can_be_generated(secrets: SecretsBundle) -> None:
    assert [len(generated(secrets, contract).controlplane) for contract in CONTRACTS] == [2, 2, 28]
