"""The command lines of the control plane: Talos' own flags, with loopback, free ports and shorter delays for a lab.

Written after Talos' controlplane static pods (internal/app/machined/pkg/controllers/k8s/control_plane_static_pod.go),
with its policies for `extraArgs`: most replace a flag, some are appended to it, some are refused.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.errors import FluobookError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook_lab.engines.identities import Files
    from fluobook_lab.talos import MachineConfiguration

Flags = dict[str, str | list[str]]

_ETCD = """
    name=lab data-dir={files}/etcd initial-cluster=lab={peer} initial-cluster-state=new
    listen-client-urls={client} advertise-client-urls={client} listen-peer-urls={peer}
    initial-advertise-peer-urls={peer}
    cert-file={files}/etcd-server.crt key-file={files}/etcd-server.key trusted-ca-file={files}/etcd-ca.crt
    peer-cert-file={files}/etcd-server.crt peer-key-file={files}/etcd-server.key
    peer-trusted-ca-file={files}/etcd-ca.crt client-cert-auth=true peer-client-cert-auth=true unsafe-no-fsync=true
    log-level=warn
"""
"""One member: Talos' emulator simulates the quorum. A rehearsal needs nothing after a power failure, so no fsync."""
_API_SERVER = """
    bind-address=127.0.0.1 secure-port={port} advertise-address={address} allow-privileged=true anonymous-auth=false
    admission-control-config-file={files}/admission.json authorization-config={files}/authorization.json
    api-audiences={endpoint} client-ca-file={files}/ca.crt enable-admission-plugins=NodeRestriction
    requestheader-client-ca-file={files}/aggregator-ca.crt requestheader-allowed-names=front-proxy-client
    requestheader-extra-headers-prefix=X-Remote-Extra- requestheader-group-headers=X-Remote-Group
    requestheader-username-headers=X-Remote-User proxy-client-cert-file={files}/front-proxy.crt
    proxy-client-key-file={files}/front-proxy.key enable-bootstrap-token-auth=true tls-min-version=VersionTLS12
    encryption-provider-config={files}/encryption.json audit-policy-file={files}/audit.json
    audit-log-path={files}/audit.log profiling=false egress-selector-config-file={files}/egress.json
    etcd-cafile={files}/etcd-ca.crt etcd-certfile={files}/etcd-client.crt etcd-keyfile={files}/etcd-client.key
    etcd-servers={etcd} kubelet-client-certificate={files}/kubelet-client.crt
    kubelet-client-key={files}/kubelet-client.key kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname
    service-account-issuer={endpoint} service-account-key-file={files}/service-account.key
    service-account-signing-key-file={files}/service-account.key service-cluster-ip-range={services}
    tls-cert-file={files}/apiserver.crt tls-private-key-file={files}/apiserver.key
"""
_CONTROLLER_MANAGER = """
    use-service-account-credentials=true allocate-node-cidrs=true bind-address=127.0.0.1 secure-port=0
    cluster-cidr={pods} service-cluster-ip-range={services} cluster-signing-cert-file={files}/ca.crt
    cluster-signing-key-file={files}/ca.key controllers=*,tokencleaner configure-cloud-routes=false
    kubeconfig={files}/controller-manager.kubeconfig
    authentication-kubeconfig={files}/controller-manager.kubeconfig
    authorization-kubeconfig={files}/controller-manager.kubeconfig leader-elect=false root-ca-file={files}/ca.crt
    service-account-private-key-file={files}/service-account.key profiling=false tls-min-version=VersionTLS13
    cert-dir={files}/controller-manager-certificates flex-volume-plugin-dir={files}/flex kube-api-qps=500
    kube-api-burst=1000
"""
"""With the default rate limit, its about 35 service accounts would delay the first pod by five seconds."""
_SCHEDULER = """
    config={files}/scheduler.json authentication-tolerate-lookup-failure=false
    authentication-kubeconfig={files}/scheduler.kubeconfig authorization-kubeconfig={files}/scheduler.kubeconfig
    bind-address=127.0.0.1 secure-port=0 profiling=false tls-min-version=VersionTLS13
    cert-dir={files}/scheduler-certificates
"""
_KWOK = """
    kubeconfig={files}/admin.kubeconfig config={files}/kwok.yaml manage-all-nodes=true node-lease-duration-seconds=0
    node-port=0 cidr={pods} node-ip={address} v=WARN
"""
_STAGES = """\
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: nodes-belong-to-the-kubelets}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector: {matchAnnotations: {fluobook.lab/never: "true"}}
  next: {}
"""
"""KWOK simulates pods alone: its stage for nodes matches none, since the emulated kubelets manage them."""

_DENIED = {
    "apiServer": """
        etcd-servers client-ca-file requestheader-client-ca-file proxy-client-cert-file proxy-client-key-file
        encryption-provider-config etcd-cafile etcd-certfile etcd-keyfile kubelet-client-certificate kubelet-client-key
        service-account-key-file service-account-signing-key-file tls-cert-file tls-private-key-file
        authorization-config
    """,
    "controllerManager": """
        cluster-signing-cert-file cluster-signing-key-file authentication-kubeconfig authorization-kubeconfig
        root-ca-file service-account-private-key-file
    """,
    "scheduler": "kubeconfig authentication-kubeconfig authorization-kubeconfig config",
    "kubelet": "bootstrap-kubeconfig kubeconfig container-runtime container-runtime-endpoint config cert-dir",
}
_JOINED = {
    "apiServer": "enable-admission-plugins feature-gates authorization-mode tls-cipher-suites",
    "controllerManager": "service-cluster-ip-range controllers",
    "scheduler": "",
}
_REPEATED = {"service-account-issuer"}
_LAB = """
    bind-address secure-port advertise-address audit-log-path audit-log-maxage audit-log-maxbackup audit-log-maxsize
    egress-selector-config-file cert-dir flex-volume-plugin-dir leader-elect kubeconfig kube-api-qps kube-api-burst
"""
"""The lab decides where a program listens and writes, and how soon it acts; `extraArgs` do not change that."""


def etcd(files: Files, client: str, peer: str) -> list[str]:
    """Etcd with its URLs for clients and for members."""
    return command_line(_flags(_ETCD, files, client=client, peer=peer))


def api_server(files: Files, config: MachineConfiguration, address: str, *, port: int, etcd: str) -> list[str]:
    """kube-apiserver of one node; the node's address is advertised and never dialled."""
    services = _subnets(config, "serviceSubnets", "10.96.0.0/12")
    values = {"address": address, "port": port, "etcd": etcd, "endpoint": config.endpoint, "services": services}
    return command_line(merged(_flags(_API_SERVER, files, **values), "apiServer", _extra(config, "apiServer")))


def controllers(files: Files, config: MachineConfiguration, address: str) -> dict[str, list[str]]:
    """kube-controller-manager, kube-scheduler and KWOK, by the name of the program."""
    pods, services = _subnets(config, "podSubnets", "10.244.0.0/16"), _subnets(config, "serviceSubnets", "10.96.0.0/12")
    manager = _flags(_CONTROLLER_MANAGER, files, pods=pods, services=services)
    kwok = _flags(_KWOK, files, pods=pods.replace(".0.0/16", ".0.0/24"), address=address)
    return {
        "kube-controller-manager": command_line(
            merged(manager, "controllerManager", _extra(config, "controllerManager"))
        ),
        "kube-scheduler": command_line(merged(_flags(_SCHEDULER, files), "scheduler", _extra(config, "scheduler"))),
        "kwok": command_line(kwok),
    }


def write_settings(files: Files, config: MachineConfiguration) -> None:
    """Write the files that the flags name: admission, audit, authorization, encryption, scheduler, KWOK."""
    server = config.cluster.get("apiServer") or {}
    admission = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration"}
    plugins = [dict(plugin) for plugin in server.get("admissionControl") or ()]
    files.write("admission.json", json.dumps({**admission, "plugins": plugins}))
    audit = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
    files.write("audit.json", json.dumps(server.get("auditPolicy") or audit))
    configured = [dict(authorizer) for authorizer in server.get("authorizationConfig") or ()]
    missing = {"Node", "RBAC"} - {authorizer.get("type") for authorizer in configured}
    authorizers = [{"type": kind, "name": kind.lower()} for kind in sorted(missing)] + configured
    head = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration"}
    files.write("authorization.json", json.dumps({**head, "authorizers": authorizers}))
    files.write("encryption.json", json.dumps(_encryption(config)))
    scheduler = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}
    client = {"kubeconfig": str(files.folder / "scheduler.kubeconfig"), "qps": 500, "burst": 1000}
    own = {"clientConnection": client, "leaderElection": {"leaderElect": False}}
    files.write("scheduler.json", json.dumps({**scheduler, **own}))
    files.write("kwok.yaml", _STAGES)


def _encryption(config: MachineConfiguration) -> dict[str, Any]:
    names = {"secretboxEncryptionSecret": "secretbox", "aescbcEncryptionSecret": "aescbc"}
    providers: list[dict[str, Any]] = [
        {provider: {"keys": [{"name": "key1", "secret": str(config.cluster[name])}]}}
        for name, provider in names.items()
        if config.cluster.get(name)
    ]
    resources = [{"resources": ["secrets"], "providers": [*providers, {"identity": {}}]}]
    return {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": resources}


def merged(flags: Mapping[str, str | list[str]], component: str, extra: Mapping[str, Any] | None) -> Flags:
    """A program's flags with the extra ones of a configuration.

    Args:
        flags: Talos' own.
        component: its section of `cluster`, such as "apiServer".
        extra: its extraArgs; a value may be a list.

    Raises:
        FluobookError: Talos does not allow one of them.
    """
    result: Flags = dict(flags)
    for name, value in (extra or {}).items():
        values = [_text(item) for item in (value if isinstance(value, list) else [value])]
        if name in _DENIED[component].split():
            raise FluobookError(
                f"cluster.{component}.extraArgs of the machine configuration is wrong",
                cause=f'extra arg "{name}" is not allowed',
                remedy="remove it: Talos sets it from other fields",
            )
        if name in _LAB.split():
            continue
        if name in _REPEATED:
            result[name] = [*_listed(result.get(name)), *values]
        elif name in _JOINED[component].split():
            parts = [part.strip() for text in (*_listed(result.get(name)), *values) for part in text.split(",")]
            result[name] = ",".join(dict.fromkeys(filter(None, parts)))
        else:
            result[name] = values
    return result


def command_line(flags: Mapping[str, str | list[str]]) -> list[str]:
    """Flags as arguments; a list repeats its flag."""
    return [f"--{name}={value}" for name, values in flags.items() for value in _listed(values)]


def refused_by_talos(names: Iterable[str]) -> str:
    """Talos' message about kubelet flags that it sets itself, "" if none is among them."""
    denied = next((name for name in names if name in _DENIED["kubelet"].split()), "")
    return f'error merging arguments: extra arg "{denied}" is not allowed' if denied else ""


def refused_by_kubelet(names: Iterable[str]) -> str:
    """The message with which a kubelet ends over an unknown flag, "" if it knows all."""
    unknown = next((name for name in names if name not in _kubelet_flags()), "")
    return f'"command failed" err="failed to parse kubelet flag: unknown flag: --{unknown}"' if unknown else ""


@cache
def _kubelet_flags() -> frozenset[str]:
    """The flags of kubelet 1.35 (cmd/kubelet/app/options), with those of component-base for logs."""
    return frozenset(Path(__file__).with_name("kubelet_flags.txt").read_text().split())


def _flags(template: str, files: Files, **values: object) -> dict[str, str]:
    pairs = (flag.partition("=") for flag in template.split())
    return {name: value.format(files=files.folder, **values) for name, _, value in pairs}


def _subnets(config: MachineConfiguration, name: str, default: str) -> str:
    return ",".join((config.cluster.get("network") or {}).get(name) or [default])


def _extra(config: MachineConfiguration, component: str) -> Mapping[str, Any] | None:
    return dict((config.cluster.get(component) or {}).get("extraArgs") or {})


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
