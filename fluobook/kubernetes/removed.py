"""What a version of Kubernetes no longer has, found in objects and in machine configurations; removed.yaml has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fluobook.files import packaged
from fluobook.params.versions import ordered

_ROWS: Mapping[str, Mapping[str, Any]] = packaged(__package__, "removed.yaml")
KUBELET = "kubelet"
PLACES = {
    "kube-apiserver": "apiServer",
    "kube-controller-manager": "controllerManager",
    "kube-scheduler": "scheduler",
    "kube-proxy": "proxy",
}
"""The parts of a control plane, and where the machine configuration has them, below `cluster`."""


def apis(minor: str) -> Iterator[tuple[str, str]]:
    """The API versions and kinds that a minor version, such as "1.37", does not serve."""
    for row in _until(minor):
        for api_version, kinds in _ROWS[row].get("apis", {}).items():
            yield from ((api_version, kind) for kind in kinds)


def in_configuration(main: Mapping[str, Any], minor: str) -> Iterator[str]:
    """The flags, gates and admission plugins of a machine configuration that a minor version does not know.

    Args:
        main: the configuration, folded into its v1alpha1 document.
        minor: such as "1.36".
    """
    cluster, machine = main.get("cluster") or {}, main.get("machine") or {}
    parts = {name: cluster.get(place) or {} for name, place in PLACES.items()} | {KUBELET: machine.get(KUBELET) or {}}
    for name, part in parts.items():
        arguments = part.get("extraArgs") or {}
        gates = {gate.partition("=")[0].strip() for gate in _values(arguments.get("feature-gates"))}
        gates |= set((part.get("extraConfig") or part.get("config") or {}).get("featureGates") or ())
        plugins = {plugin.strip() for plugin in _values(arguments.get("enable-admission-plugins"))}
        for row in _until(minor):
            known = _ROWS[row]
            flags = set(str(known.get("flags", {}).get(name, "")).split()) & set(arguments)
            yield from (f"{name}: the flag {flag} was removed in {row}" for flag in sorted(flags))
            for kind, used in (("gates", gates), ("plugins", plugins)):
                what = "feature gate" if kind == "gates" else "admission plugin"
                gone = used & set(str(known.get(kind, "")).split())
                yield from (f"{name}: the {what} {each} was removed in {row}" for each in sorted(gone))


def _values(argument: Any) -> list[str]:
    """The values of an argument: a text with commas, or from Talos 1.13 on a list of such."""
    texts = argument if isinstance(argument, list) else [argument] if argument else []
    return [value for text in texts for value in str(text).split(",")]


def _until(minor: str) -> list[str]:
    return [row for row in _ROWS if ordered(row) <= ordered(minor)]
