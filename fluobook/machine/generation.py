"""Machine configurations as `talosctl gen config` generates them, for the version contract of Talos 1.13.

Pure: the same arguments give the same documents, and this module knows neither the platform nor which versions are
compatible. What the platform adds is in `fluobook.machine.node` and in talos/patches.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook.machine.pki import encode_pem
from fluobook.machine.secrets import SecretsBundle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook.machine.documents import Document
    from fluobook.machine.pki import KeyPair

_KUBELET = "ghcr.io/siderolabs/kubelet"
_REGISTRY = "registry.k8s.io"
_KUBEPRISM_PORT = 7445
_NOT_BALANCED = "node.kubernetes.io/exclude-from-external-load-balancers"

_POD_SECURITY = {
    "name": "PodSecurity",
    "configuration": {
        "apiVersion": "pod-security.admission.config.k8s.io/v1alpha1",
        "kind": "PodSecurityConfiguration",
        "defaults": {
            "enforce": "baseline",
            "enforce-version": "latest",
            "audit": "restricted",
            "audit-version": "latest",
            "warn": "restricted",
            "warn-version": "latest",
        },
        "exemptions": {"usernames": [], "runtimeClasses": [], "namespaces": ["kube-system"]},
    },
}
_AUDIT_POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}


@dataclass(frozen=True)
class Documents:
    """The configurations of a cluster's two kinds of nodes; in each list the v1alpha1 document comes first."""

    controlplane: list[Document] = field(repr=False)
    worker: list[Document] = field(repr=False)

    def of(self, role: str) -> list[Document]:
        """The documents for "controlplane" or "worker"."""
        return {"controlplane": self.controlplane, "worker": self.worker}[role]


def generate(
    name: str,
    endpoint: str,
    kubernetes_version: str,
    secrets: SecretsBundle | Mapping[str, Any],
    install_disk: str = "",
    *,
    install_image: str = "",
    install_kernel_args: Iterable[str] = (),
    additional_sans: Iterable[str] = (),
    dns_domain: str = "cluster.local",
    pod_subnets: Iterable[str] = ("10.244.0.0/16",),
    service_subnets: Iterable[str] = ("10.96.0.0/12",),
    cni: Mapping[str, Any] | None = None,
    sysctls: Mapping[str, str] | None = None,
    registry_mirrors: Mapping[str, Iterable[str]] | None = None,
    allow_scheduling_on_controlplanes: bool = False,
    local_api_server_port: int = 0,
) -> Documents:
    """The configurations of control planes and workers; the keyword arguments are those of `talosctl gen config`.

    Args:
        name: name of the cluster.
        endpoint: URL of the Kubernetes API, such as https://10.10.0.10:6443.
        kubernetes_version: such as 1.35.4; "" leaves the images to Talos.
        secrets: the cluster's secrets, or the bundle as parsed YAML.
        install_disk: such as /dev/sda; "" leaves it out.
        install_image: the installer's image; "" leaves it to Talos.
        install_kernel_args: for the installed system.
        additional_sans: names and addresses for the certificates of both APIs.
        dns_domain: of the cluster.
        pod_subnets: CIDRs.
        service_subnets: CIDRs.
        cni: `{name: …, urls: […]}`; None is Talos' default, flannel.
        sysctls: kernel parameters.
        registry_mirrors: mirror URLs by registry.
        allow_scheduling_on_controlplanes: without a taint there.
        local_api_server_port: port of kube-apiserver on the nodes; 0 for 6443.

    Raises:
        ParamsError: the bundle is incomplete.
    """
    bundle = secrets if isinstance(secrets, SecretsBundle) else SecretsBundle.parse(secrets)
    version, sans = kubernetes_version.removeprefix("v"), list(additional_sans)
    disk = {"disk": install_disk, "extraKernelArgs": list(install_kernel_args), "image": install_image}
    install = {**_present(disk), "wipe": False, "grubUseUKICmdline": True}
    network = {
        **({"cni": dict(cni)} if cni else {}),
        "dnsDomain": dns_domain,
        "podSubnets": list(pod_subnets),
        "serviceSubnets": list(service_subnets),
    }
    machine = {**_machine(bundle, version, sans, install), **_present({"sysctls": dict(sysctls or {})})}
    cluster = _cluster(bundle, name, endpoint, network)
    own_machine = {"type": "controlplane", "ca": bundle.talos.to_base64(), "nodeLabels": {_NOT_BALANCED: ""}}
    own_cluster = {
        **_controlplane_cluster(bundle, version, sans),
        "controlPlane": {"endpoint": endpoint, **_present({"localAPIServerPort": local_api_server_port})},
        **_present({"allowSchedulingOnControlPlanes": allow_scheduling_on_controlplanes}),
    }
    mirrors = [
        _document("RegistryMirrorConfig", name=registry, endpoints=[{"url": url} for url in urls])
        for registry, urls in sorted((registry_mirrors or {}).items())
    ]
    others = [*mirrors, _document("HostnameConfig", auto="stable")]
    return Documents(
        controlplane=[_v1alpha1({**machine, **own_machine}, {**cluster, **own_cluster}), *copy.deepcopy(others)],
        worker=[_v1alpha1(machine, cluster), *others],
    )


def _v1alpha1(machine: Document, cluster: Document) -> Document:
    head = {"version": "v1alpha1", "debug": False, "persist": True}
    return copy.deepcopy({**head, "machine": machine, "cluster": cluster})


def _machine(bundle: SecretsBundle, version: str, sans: list[str], install: Mapping[str, Any]) -> Document:
    kubelet = _image(_KUBELET, version)
    return {
        "type": "worker",
        "token": bundle.trustd_token,
        "ca": _certificate_only(bundle.talos),
        "certSANs": sans,
        "kubelet": {**kubelet, "defaultRuntimeSeccompProfileEnabled": True, "disableManifestsDirectory": True},
        "install": install,
        "features": {
            "diskQuotaSupport": True,
            "kubePrism": {"enabled": True, "port": _KUBEPRISM_PORT},
            "hostDNS": {"enabled": True, "forwardKubeDNSToHost": True},
        },
    }


def _cluster(bundle: SecretsBundle, name: str, endpoint: str, network: Document) -> Document:
    return {
        "id": bundle.cluster_id,
        "secret": bundle.cluster_secret,
        "controlPlane": {"endpoint": endpoint},
        "clusterName": name,
        "network": network,
        "token": bundle.bootstrap_token,
        "ca": _certificate_only(bundle.kubernetes),
        "discovery": {"enabled": True, "registries": {"kubernetes": {"disabled": True}, "service": {}}},
    }


def _controlplane_cluster(bundle: SecretsBundle, version: str, sans: list[str]) -> Document:
    encryption = {
        "secretboxEncryptionSecret": bundle.secretbox_encryption_secret,
        "aescbcEncryptionSecret": bundle.aescbc_encryption_secret,
    }
    return {
        **_present(encryption),
        "ca": bundle.kubernetes.to_base64(),
        "aggregatorCA": bundle.aggregator.to_base64(),
        "serviceAccount": {"key": encode_pem(bundle.service_account_key)},
        "apiServer": {
            **_image(f"{_REGISTRY}/kube-apiserver", version),
            **_present({"certSANs": sans}),
            "admissionControl": [_POD_SECURITY],
            "auditPolicy": _AUDIT_POLICY,
        },
        "controllerManager": _image(f"{_REGISTRY}/kube-controller-manager", version),
        "proxy": _image(f"{_REGISTRY}/kube-proxy", version),
        "scheduler": _image(f"{_REGISTRY}/kube-scheduler", version),
        "etcd": {"ca": bundle.etcd.to_base64()},
    }


def _document(kind: str, **fields: Any) -> Document:
    return {"apiVersion": "v1alpha1", "kind": kind, **fields}


def _image(repository: str, version: str) -> dict[str, str]:
    return {"image": f"{repository}:v{version}"} if version else {}


def _certificate_only(pair: KeyPair) -> dict[str, str]:
    return {**pair.to_base64(), "key": ""}


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}
