"""The command lines of the control plane: Talos' own flags, with loopback, free ports and a test's haste put in.

Written after Talos' controlplane static pods (internal/app/machined/pkg/controllers/k8s/control_plane_static_pod.go).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook_lab.engines.extra_args import command_line, merged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook_lab.engines.identities import Files
    from fluobook_lab.talos import MachineConfiguration

_ADMISSION_KIND = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration"}


@dataclass(frozen=True)
class Etcd:
    """Where the cluster's etcd listens.

    Args:
        client: port for the API servers.
        peer: port for members.
    """

    client: int
    peer: int

    @property
    def url(self) -> str:
        """For clients."""
        return f"https://127.0.0.1:{self.client}"


def write_settings(files: Files, config: MachineConfiguration) -> None:
    """Write the files that the flags name: admission, audit, authorization, encryption, the scheduler's."""
    server = config.cluster.get("apiServer") or {}
    plugins = [dict(plugin) for plugin in server.get("admissionControl") or ()]
    files.write("admission.json", json.dumps({**_ADMISSION_KIND, "plugins": plugins}))
    files.write("audit.json", json.dumps(server.get("auditPolicy") or _no_audit()))
    authorizers = _authorizers(server.get("authorizationConfig") or ())
    head = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration"}
    files.write("authorization.json", json.dumps({**head, "authorizers": authorizers}))
    files.write("encryption.json", json.dumps(_encryption(config)))
    scheduler = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}
    own = {"clientConnection": {"kubeconfig": files.named("scheduler.kubeconfig"), "qps": 500, "burst": 1000}}
    files.write("scheduler.json", json.dumps({**scheduler, **own, "leaderElection": {"leaderElect": False}}))


def _authorizers(told: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the configuration names; Node and RBAC stand first unless it names them itself."""
    named = [dict(one) for one in told]
    types = [one.get("type") for one in named]
    return [{"type": one, "name": one.lower()} for one in ("Node", "RBAC") if one not in types] + named


def _no_audit() -> dict[str, Any]:
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}


def _encryption(config: MachineConfiguration) -> dict[str, Any]:
    names = {"secretboxEncryptionSecret": "secretbox", "aescbcEncryptionSecret": "aescbc"}
    providers: list[dict[str, Any]] = [
        {provider: {"keys": [{"name": "key1", "secret": str(config.cluster[name])}]}}
        for name, provider in names.items()
        if config.cluster.get(name)
    ]
    resources = [{"resources": ["secrets"], "providers": [*providers, {"identity": {}}]}]
    return {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": resources}


def etcd(files: Files, ports: Etcd) -> list[str]:
    """One member: the lab's quorum is Talos' emulator's business. Nothing of a rehearsal must outlive a power cut."""
    peer = f"https://127.0.0.1:{ports.peer}"
    return _flags(
        {
            "name": "lab",
            "data-dir": files.named("etcd"),
            "listen-client-urls": ports.url,
            "advertise-client-urls": ports.url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"lab={peer}",
            "initial-cluster-state": "new",
            "cert-file": files.crt("etcd-server"),
            "key-file": files.key("etcd-server"),
            "trusted-ca-file": files.crt("etcd-ca"),
            "client-cert-auth": "true",
            "peer-cert-file": files.crt("etcd-server"),
            "peer-key-file": files.key("etcd-server"),
            "peer-trusted-ca-file": files.crt("etcd-ca"),
            "peer-client-cert-auth": "true",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }
    )


def api_server(files: Files, config: MachineConfiguration, address: str, *, port: int, etcd: Etcd) -> list[str]:
    """kube-apiserver of one node; `address` is the node's, which is advertised and never dialled."""
    told = {
        "bind-address": "127.0.0.1",
        "secure-port": str(port),
        "advertise-address": address,
        "allow-privileged": "true",
        "anonymous-auth": "false",
        "admission-control-config-file": files.named("admission.json"),
        "authorization-config": files.named("authorization.json"),
        "api-audiences": config.endpoint,
        "client-ca-file": files.crt("ca"),
        "enable-admission-plugins": "NodeRestriction",
        "requestheader-client-ca-file": files.crt("aggregator-ca"),
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "proxy-client-cert-file": files.crt("front-proxy"),
        "proxy-client-key-file": files.key("front-proxy"),
        "enable-bootstrap-token-auth": "true",
        "tls-min-version": "VersionTLS12",
        "encryption-provider-config": files.named("encryption.json"),
        "audit-policy-file": files.named("audit.json"),
        "audit-log-path": files.named("audit.log"),
        "profiling": "false",
        "egress-selector-config-file": files.named("egress.json"),
        "etcd-cafile": files.crt("etcd-ca"),
        "etcd-certfile": files.crt("etcd-client"),
        "etcd-keyfile": files.key("etcd-client"),
        "etcd-servers": etcd.url,
        "kubelet-client-certificate": files.crt("kubelet-client"),
        "kubelet-client-key": files.key("kubelet-client"),
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
        "service-account-issuer": config.endpoint,
        "service-account-key-file": files.named("service-account.key"),
        "service-account-signing-key-file": files.named("service-account.key"),
        "service-cluster-ip-range": network(config, "serviceSubnets", "10.96.0.0/12"),
        "tls-cert-file": files.crt("apiserver"),
        "tls-private-key-file": files.key("apiserver"),
    }
    return command_line(merged(told, "apiServer", _extra(config, "apiServer")))


def controller_manager(files: Files, config: MachineConfiguration) -> list[str]:
    """kube-controller-manager. Unhurried, its some 35 service accounts delay the first pod by five seconds."""
    kubeconfig = files.named("controller-manager.kubeconfig")
    told = {
        "use-service-account-credentials": "true",
        "allocate-node-cidrs": "true",
        "bind-address": "127.0.0.1",
        "secure-port": "0",
        "cluster-cidr": network(config, "podSubnets", "10.244.0.0/16"),
        "service-cluster-ip-range": network(config, "serviceSubnets", "10.96.0.0/12"),
        "cluster-signing-cert-file": files.crt("ca"),
        "cluster-signing-key-file": files.key("ca"),
        "controllers": "*,tokencleaner",
        "configure-cloud-routes": "false",
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "leader-elect": "false",
        "root-ca-file": files.crt("ca"),
        "service-account-private-key-file": files.named("service-account.key"),
        "profiling": "false",
        "tls-min-version": "VersionTLS13",
        "cert-dir": files.named("controller-manager-certificates"),
        "flex-volume-plugin-dir": files.named("flex"),
        "kube-api-qps": "500",
        "kube-api-burst": "1000",
    }
    return command_line(merged(told, "controllerManager", _extra(config, "controllerManager")))


def scheduler(files: Files, config: MachineConfiguration) -> list[str]:
    """kube-scheduler."""
    kubeconfig = files.named("scheduler.kubeconfig")
    told = {
        "config": files.named("scheduler.json"),
        "authentication-tolerate-lookup-failure": "false",
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "secure-port": "0",
        "profiling": "false",
        "tls-min-version": "VersionTLS13",
        "cert-dir": files.named("scheduler-certificates"),
    }
    return command_line(merged(told, "scheduler", _extra(config, "scheduler")))


def kwok(files: Files, config: MachineConfiguration, address: str) -> list[str]:
    """KWOK plays pods alone; nodes are the emulated kubelets' own, so its stage for nodes fits none."""
    return _flags(
        {
            "kubeconfig": files.named("admin.kubeconfig"),
            "config": files.named("kwok.yaml"),
            "manage-all-nodes": "true",
            "node-lease-duration-seconds": "0",
            "node-port": "0",
            "cidr": network(config, "podSubnets", "10.244.0.0/16").replace(".0.0/16", ".0.0/24"),
            "node-ip": address,
            "v": "WARN",
        }
    )


def network(config: MachineConfiguration, name: str, default: str) -> str:
    """The subnets of the configuration, as flags take them."""
    return ",".join((config.cluster.get("network") or {}).get(name) or [default])


def _extra(config: MachineConfiguration, component: str) -> Mapping[str, Any] | None:
    told: Mapping[str, Any] | None = (config.cluster.get(component) or {}).get("extraArgs")
    return told


def _flags(told: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in told.items()]
