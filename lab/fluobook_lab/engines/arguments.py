"""The command lines of the control plane: Talos' own flags, with loopback, free ports and shorter delays for a lab.

`arguments.yaml` has them, with Talos' policies for `extraArgs`: most replace a flag, some are appended to it, some are
refused.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook.errors import FluobookError
from fluobook_lab.data import table
from fluobook_lab.kube.controllers.created import ENDING, FAULTY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook_lab.engines.identities import Files
    from fluobook_lab.talos import MachineConfiguration

Flags = dict[str, str | list[str]]

_ARGUMENTS = "engines/arguments.yaml"


def etcd(files: Files, client: str, peer: str) -> list[str]:
    """Etcd with its URLs for clients and for members."""
    return command_line(_flags("etcd", files, client=client, peer=peer))


def api_server(files: Files, config: MachineConfiguration, address: str, *, port: int, etcd: str) -> list[str]:
    """kube-apiserver of one node; the node's address is advertised and never dialled."""
    services = _subnets(config, "serviceSubnets", "10.96.0.0/12")
    values = {"address": address, "port": port, "etcd": etcd, "endpoint": config.endpoint, "services": services}
    return command_line(merged(_flags("kube-apiserver", files, **values), "apiServer", _extra(config, "apiServer")))


def controllers(files: Files, config: MachineConfiguration, address: str) -> dict[str, list[str]]:
    """kube-controller-manager, kube-scheduler and KWOK, by the name of the program."""
    pods, services = _subnets(config, "podSubnets", "10.244.0.0/16"), _subnets(config, "serviceSubnets", "10.96.0.0/12")
    manager = _flags("kube-controller-manager", files, pods=pods, services=services)
    kwok = _flags("kwok", files, pods=pods.replace(".0.0/16", ".0.0/24"), address=address)
    return {
        "kube-controller-manager": command_line(
            merged(manager, "controllerManager", _extra(config, "controllerManager"))
        ),
        "kube-scheduler": command_line(
            merged(_flags("kube-scheduler", files), "scheduler", _extra(config, "scheduler"))
        ),
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
    files.write(
        "kwok.yaml", table(_ARGUMENTS)["stages"].replace("ENDING", ", ".join(name for _, name in ENDING | FAULTY))
    )


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
    policies = table(_ARGUMENTS)
    for name, value in (extra or {}).items():
        values = [_text(item) for item in (value if isinstance(value, list) else [value])]
        if name in policies["denied"][component].split():
            raise FluobookError(
                f"cluster.{component}.extraArgs of the machine configuration is wrong",
                cause=f'extra arg "{name}" is not allowed',
                remedy="remove it: Talos sets it from other fields",
            )
        if name in policies["lab"].split():
            continue
        if name in policies["repeated"].split():
            result[name] = [*_listed(result.get(name)), *values]
        elif name in policies["joined"][component].split():
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
    denied = next((name for name in names if name in table(_ARGUMENTS)["denied"]["kubelet"].split()), "")
    return f'error merging arguments: extra arg "{denied}" is not allowed' if denied else ""


def refused_by_kubelet(names: Iterable[str]) -> str:
    """The message with which a kubelet ends over an unknown flag, "" if it knows all."""
    unknown = next((name for name in names if name not in _kubelet_flags()), "")
    return f'"command failed" err="failed to parse kubelet flag: unknown flag: --{unknown}"' if unknown else ""


@cache
def _kubelet_flags() -> frozenset[str]:
    """The flags of kubelet 1.35 (cmd/kubelet/app/options), with those of component-base for logs."""
    return frozenset(Path(__file__).with_name("kubelet_flags.txt").read_text().split())


def _flags(program: str, files: Files, **values: object) -> dict[str, str]:
    pairs = (flag.partition("=") for flag in table(_ARGUMENTS)["programs"][program].split())
    return {name: value.format(files=files.folder, **values) for name, _, value in pairs}


def _subnets(config: MachineConfiguration, name: str, default: str) -> str:
    return ",".join((config.cluster.get("network") or {}).get(name) or [default])


def _extra(config: MachineConfiguration, component: str) -> Mapping[str, Any] | None:
    return dict((config.cluster.get(component) or {}).get("extraArgs") or {})


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
