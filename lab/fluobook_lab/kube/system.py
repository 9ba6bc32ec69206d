"""What Talos and Kubernetes themselves put into a new cluster: RBAC for bootstrap, DNS, the API's Service."""

from __future__ import annotations

import base64
import ipaddress
from typing import TYPE_CHECKING

from fluobook.params import KUBERNETES_PORT

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store

MANAGER = "talos"
_RBAC = "rbac.authorization.k8s.io"
_ADMIN = ("cluster-admin", ("system:masters",), "cluster-admin")
_BINDINGS = (
    (
        "system-bootstrap-node-bootstrapper",
        ("system:bootstrappers:nodes", "system:nodes"),
        "system:node-bootstrapper",
    ),
    (
        "system-bootstrap-approve-node-client-csr",
        ("system:bootstrappers:nodes",),
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
    ),
    (
        "system-bootstrap-node-renewal",
        ("system:nodes",),
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
    ),
)


def install(store: Store, *, bootstrap_token: str, service_cidr: str) -> None:
    """Apply them all.

    Args:
        store: the cluster.
        bootstrap_token: "id.secret", "" for none.
        service_cidr: the first address is the API's, the tenth the DNS server's.
    """
    network = ipaddress.ip_network(service_cidr)
    kubernetes_own = [_binding(*_ADMIN), _cluster_admin(), _api_service(str(network[1]))]
    for obj in [*kubernetes_own, *of_talos(bootstrap_token=bootstrap_token, service_cidr=service_cidr)]:
        store.apply(obj, manager=MANAGER, force=True)


def of_talos(*, bootstrap_token: str, service_cidr: str) -> list[Obj]:
    """What Talos alone brings: the rest is made by the API server and its controllers."""
    objects = [_binding(*told) for told in _BINDINGS] + _dns(str(ipaddress.ip_network(service_cidr)[10]))
    return objects + ([_token_secret(bootstrap_token)] if bootstrap_token else [])


def _cluster_admin() -> Obj:
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]
    return {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "cluster-admin"}, "rules": rules}


def _binding(name: str, groups: tuple[str, ...], role: str) -> Obj:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "subjects": [{"kind": "Group", "name": group, "apiGroup": _RBAC} for group in groups],
        "roleRef": {"kind": "ClusterRole", "name": role, "apiGroup": _RBAC},
    }


def _token_secret(token: str) -> Obj:
    identifier, _, secret = token.partition(".")
    data = {"token-id": identifier, "token-secret": secret, "usage-bootstrap-authentication": "true"}
    data |= {"auth-extra-groups": "system:bootstrappers:nodes"}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"bootstrap-token-{identifier}", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def _api_service(address: str) -> Obj:
    labels = {"component": "apiserver", "provider": "kubernetes"}
    port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": KUBERNETES_PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [port]},
    }


def _dns(address: str) -> list[Obj]:
    labels = {"k8s-app": "kube-dns"}
    metadata = {"namespace": "kube-system", "labels": labels}
    tolerations = [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}]
    container = {"name": "coredns", "image": "registry.k8s.io/coredns/coredns:v1.14.1"}
    pod = {"serviceAccountName": "coredns", "tolerations": tolerations, "containers": [container]}
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "coredns", "namespace": "kube-system"}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**metadata, "name": "coredns"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**metadata, "name": "kube-dns"},
            "spec": {"clusterIP": address, "clusterIPs": [address], "selector": labels, "ports": ports},
        },
    ]
