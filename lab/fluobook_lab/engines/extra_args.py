"""What becomes of `extraArgs`, by Talos' own policies: most replace a flag, some are added to it, some are refused.

Written after Talos' controlplane static pods; what keeps a lab on loopback stays as the lab has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.errors import FluobookError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Flags = dict[str, str | list[str]]

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
_OF_THE_LAB = frozenset(_LAB.split())
"""What decides where a program listens and writes, and how soon it acts."""


def merged(flags: Mapping[str, str], component: str, told: Mapping[str, Any] | None) -> Flags:
    """A program's flags with the extra ones of a configuration.

    Args:
        flags: Talos' own.
        component: its section of `cluster`, such as "apiServer".
        told: its extraArgs; a value may be a list.

    Raises:
        FluobookError: Talos keeps one of them to itself.
    """
    result: Flags = dict(flags)
    for name, value in (told or {}).items():
        values = [_text(one) for one in (value if isinstance(value, list) else [value])]
        if name in _DENIED[component].split():
            raise FluobookError(
                f"cluster.{component}.extraArgs of the machine configuration is wrong",
                cause=f'extra arg "{name}" is not allowed',
                remedy="take it out: Talos sets it from other fields",
            )
        if name in _OF_THE_LAB:
            continue
        if name in _REPEATED:
            result[name] = [*_listed(result.get(name)), *values]
        elif name in _JOINED[component].split():
            parts = [one.strip() for text in (*_listed(result.get(name)), *values) for one in text.split(",")]
            result[name] = ",".join(dict.fromkeys(filter(None, parts)))
        else:
            result[name] = values
    return result


def command_line(flags: Flags) -> list[str]:
    """Flags as a program takes them."""
    return list(_each(flags))


def _each(flags: Flags) -> Iterator[str]:
    for name, value in flags.items():
        yield from (f"--{name}={one}" for one in _listed(value))


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
