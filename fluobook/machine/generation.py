"""Machine configurations as `talosctl gen config` makes them, for the version contract of Talos 1.13.

Pure: the same arguments give the same documents, and nothing is known here of our platform or of which versions go
together. What our platform adds stands in `fluobook.machine.node` and in talos/patches.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook.machine.secrets import SecretsBundle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook.machine.documents import Document
    from fluobook.machine.pki import KeyPair

_KUBELET = "ghcr.io/siderolabs/kubelet"
_REGISTRY = "registry.k8s.io"
_KUBEPRISM_PORT = 7445
_EXCLUDED_FROM_LOAD_BALANCERS = "node.kubernetes.io/exclude-from-external-load-balancers"

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
    """The configurations of a cluster's two kinds of nodes; in each list the v1alpha1 document stands first."""

    controlplane: list[Document] = field(repr=False)
    worker: list[Document] = field(repr=False)

    def of(self, role: str) -> list[Document]:
        """The documents for "controlplane" or "worker"."""
        return {"controlplane": self.controlplane, "worker": self.worker}[role]


@dataclass(frozen=True)
class _Input:
    """What both kinds of nodes are made from; `generate` says what each means."""

    name: str
    endpoint: str
    kubernetes_version: str
    secrets: SecretsBundle
    install: dict[str, Any]
    sans: list[str]
    dns_domain: str
    pod_subnets: list[str]
    service_subnets: list[str]
    cni: Mapping[str, Any] | None
    sysctls: Mapping[str, str]
    registry_mirrors: Mapping[str, Iterable[str]]
    schedule_on_controlplanes: bool
    local_api_port: int


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
    """Make the configurations of control planes and workers; the keyword arguments are those of `talosctl gen config`.

    Args:
        name: name of the cluster.
        endpoint: URL of the Kubernetes API, such as https://10.10.0.10:6443.
        kubernetes_version: such as 1.35.4; "" leaves the images to Talos.
        secrets: the cluster's secrets, or the bundle as YAML holds it.
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
        allow_scheduling_on_controlplanes: take no taint there.
        local_api_server_port: of kube-apiserver on the nodes; 0 for 6443.

    Raises:
        ParamsError: the bundle is not complete.
    """
    install = {"disk": install_disk, "extraKernelArgs": list(install_kernel_args), "image": install_image}
    given = _Input(
        name=name,
        endpoint=endpoint,
        kubernetes_version=kubernetes_version.removeprefix("v"),
        secrets=secrets if isinstance(secrets, SecretsBundle) else SecretsBundle.parse(secrets),
        install={**_present(install), "wipe": False, "grubUseUKICmdline": True},
        sans=list(additional_sans),
        dns_domain=dns_domain,
        pod_subnets=list(pod_subnets),
        service_subnets=list(service_subnets),
        cni=cni,
        sysctls=sysctls or {},
        registry_mirrors=registry_mirrors or {},
        schedule_on_controlplanes=allow_scheduling_on_controlplanes,
        local_api_port=local_api_server_port,
    )
    return _documents(given)


def _documents(given: _Input) -> Documents:
    return Documents(
        controlplane=[_v1alpha1(_controlplane_machine(given), _controlplane_cluster(given)), *_others(given)],
        worker=[_v1alpha1(_machine(given, "worker"), _cluster(given)), *_others(given)],
    )


def _v1alpha1(machine: Document, cluster: Document) -> Document:
    head = {"version": "v1alpha1", "debug": False, "persist": True}
    return copy.deepcopy({**head, "machine": machine, "cluster": cluster})


def _machine(given: _Input, role: str) -> Document:
    secrets = given.secrets
    kubelet = _image(_KUBELET, given)
    return {
        "type": role,
        "token": secrets.trustd_token,
        "ca": _certificate_only(secrets.talos),
        "certSANs": given.sans,
        "kubelet": {**kubelet, "defaultRuntimeSeccompProfileEnabled": True, "disableManifestsDirectory": True},
        "install": given.install,
        **_present({"sysctls": dict(given.sysctls)}),
        "features": {
            "diskQuotaSupport": True,
            "kubePrism": {"enabled": True, "port": _KUBEPRISM_PORT},
            "hostDNS": {"enabled": True, "forwardKubeDNSToHost": True},
        },
    }


def _controlplane_machine(given: _Input) -> Document:
    own = {"ca": given.secrets.talos.to_base64(), "nodeLabels": {_EXCLUDED_FROM_LOAD_BALANCERS: ""}}
    return {**_machine(given, "controlplane"), **own}


def _cluster(given: _Input) -> Document:
    secrets = given.secrets
    network = {"dnsDomain": given.dns_domain, "podSubnets": given.pod_subnets, "serviceSubnets": given.service_subnets}
    return {
        "id": secrets.cluster_id,
        "secret": secrets.cluster_secret,
        "controlPlane": {"endpoint": given.endpoint},
        "clusterName": given.name,
        "network": {**({"cni": dict(given.cni)} if given.cni else {}), **network},
        "token": secrets.bootstrap_token,
        "ca": _certificate_only(secrets.kubernetes),
        "discovery": {"enabled": True, "registries": {"kubernetes": {"disabled": True}, "service": {}}},
    }


def _controlplane_cluster(given: _Input) -> Document:
    secrets, cluster = given.secrets, _cluster(given)
    encryption = {
        "secretboxEncryptionSecret": secrets.secretbox_encryption_secret,
        "aescbcEncryptionSecret": secrets.aescbc_encryption_secret,
    }
    api_server = {
        **_image(f"{_REGISTRY}/kube-apiserver", given),
        **_present({"certSANs": given.sans}),
        "admissionControl": [_POD_SECURITY],
        "auditPolicy": _AUDIT_POLICY,
    }
    own = {
        "controlPlane": {"endpoint": given.endpoint, **_present({"localAPIServerPort": given.local_api_port})},
        **_present(encryption),
        "ca": secrets.kubernetes.to_base64(),
        "aggregatorCA": secrets.aggregator.to_base64(),
        "serviceAccount": {"key": secrets.as_mapping()["certs"]["k8sserviceaccount"]["key"]},
        "apiServer": api_server,
        "controllerManager": _image(f"{_REGISTRY}/kube-controller-manager", given),
        "proxy": _image(f"{_REGISTRY}/kube-proxy", given),
        "scheduler": _image(f"{_REGISTRY}/kube-scheduler", given),
        "etcd": {"ca": secrets.etcd.to_base64()},
        **_present({"allowSchedulingOnControlPlanes": given.schedule_on_controlplanes}),
    }
    return {**cluster, **own}


def _others(given: _Input) -> list[Document]:
    mirrors = [
        _document("RegistryMirrorConfig", name=registry, endpoints=[{"url": url} for url in urls])
        for registry, urls in sorted(given.registry_mirrors.items())
    ]
    return [*mirrors, _document("HostnameConfig", auto="stable")]


def _document(kind: str, **fields: Any) -> Document:
    return {"apiVersion": "v1alpha1", "kind": kind, **fields}


def _image(repository: str, given: _Input) -> dict[str, str]:
    return {"image": f"{repository}:v{given.kubernetes_version}"} if given.kubernetes_version else {}


def _certificate_only(pair: KeyPair) -> dict[str, str]:
    return {**pair.to_base64(), "key": ""}


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}
