"""Where Talos' merge differs from the rule, for Talos 1.13: kind of document, path in it, and what happens there.

Read off siderolabs/talos release-1.13, pkg/machinery/config: the `merge:"replace"` tags, the `Merge` methods, and the
fields that are URLs, which merge part by part, or pointers to numbers, where 0 is a value.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fluobook.errors import ParamsError

#: A place in a document; the items of a list are "*".
Path = tuple[str, ...]
#: Merges what is below a place: left, right, and the path from that place on.
Below = Callable[[Any, Any, Path], Any]
#: Merges two values at a place.
Rule = Callable[[Any, Any, Below], Any]
Rules = Mapping[Path, Rule]


def replace(_left: Any, right: Any, _below: Below) -> Any:
    """The right side as a whole."""
    return copy.deepcopy(right)


def per_key(left: Any, right: Any, _below: Below) -> Any:
    """Key by key, each value as a whole: arguments may be text or lists."""
    return {**left, **copy.deepcopy(right)}


def url(left: Any, right: Any, _below: Below) -> Any:
    """Part by part: scheme, host with port, path, query, fragment."""
    parts = zip(urlsplit(str(left)), urlsplit(str(right)), strict=True)
    return urlunsplit([new or old for old, new in parts])


def keyed(key: str) -> Rule:
    """A list whose items meet by one field."""
    return _items(lambda old, new: old.get(key) == new.get(key))


def keyed_whole(key: str) -> Rule:
    """A list whose items meet by one field and are replaced as a whole; new ones are added."""

    def rule(left: Any, right: Any, _below: Below) -> Any:
        _require_maps(left, right)
        result = list(left)
        places = {item.get(key): index for index, item in enumerate(left)}
        for item in copy.deepcopy(right):
            if item.get(key) in places:
                result[places[item.get(key)]] = item
            else:
                result.append(item)
        return result

    return rule


def _items(same: Callable[[Any, Any], bool]) -> Rule:
    def rule(left: Any, right: Any, below: Below) -> Any:
        _require_maps(left, right)
        result = list(left)
        for item in right:
            found = next((index for index, old in enumerate(result) if same(old, item)), None)
            if found is None:
                result.append(copy.deepcopy(item))
            else:
                result[found] = below(result[found], item, ("*",))
        return result

    return rule


def _require_maps(left: Any, right: Any) -> None:
    if not all(isinstance(item, dict) for item in (*left, *right)):
        raise ParamsError("a list whose items meet by a field has an item that is not a map")


def _same_interface(old: Any, new: Any) -> bool:
    if new.get("interface"):
        return bool(old.get("interface") == new["interface"])
    return bool(new.get("deviceSelector") and old.get("deviceSelector") == new["deviceSelector"])


def _zero_counts(*fields: str) -> Rules:
    """Numbers that are pointers in Talos: 0 is a value there, and wins."""
    return {tuple(field.split(".")): replace for field in fields}


_INTERFACES = ("machine", "network", "interfaces")
_ARGUMENTS = [
    ("machine", "kubelet"),
    ("cluster", "apiServer"),
    ("cluster", "controllerManager"),
    ("cluster", "proxy"),
    ("cluster", "scheduler"),
    ("cluster", "etcd"),
]

RULES: Mapping[str, Rules] = {
    "": {
        ("cluster", "network", "podSubnets"): replace,
        ("cluster", "network", "serviceSubnets"): replace,
        ("cluster", "apiServer", "auditPolicy"): replace,
        ("cluster", "apiServer", "admissionControl"): keyed("name"),
        ("cluster", "controlPlane", "endpoint"): url,
        _INTERFACES: _items(_same_interface),
        (*_INTERFACES, "*", "vlans"): keyed("vlanId"),
        **{(*component, "extraArgs"): per_key for component in _ARGUMENTS},
        **_zero_counts("machine.network.kubespan.mtu"),
    },
    "BondConfig": _zero_counts(
        *["miimon", "updelay", "downdelay", "arpInterval", "adActorSysPrio", "adUserPortKey", "resendIGMP", "minLinks"],
        *["lpInterval", "packetsPerSlave", "numPeerNotif", "tlbLogicalLb", "allSlavesActive", "peerNotifDelay"],
        "missedMax",
    ),
    "EthernetConfig": _zero_counts(
        *["rings.rx", "rings.tx", "rings.rx-mini", "rings.rx-jumbo", "rings.rx-buf-len", "rings.cqe-size"],
        *["rings.tx-push-buf-len", "channels.rx", "channels.tx", "channels.other", "channels.combined"],
    ),
    "ExtensionServiceConfig": {("configFiles",): keyed("mountPath")},
    "ImageVerificationConfig": {("rules",): keyed_whole("image")},
    "KmsgLogConfig": {("url",): url},
    "KubeSpanConfig": _zero_counts("mtu"),
    "NetworkRuleConfig": {("ingress",): replace, ("portSelector", "ports"): replace},
    "SideroLinkConfig": {("apiUrl",): url},
    "ZswapConfig": _zero_counts("maxPoolPercent"),
}
"""By kind; the v1alpha1 document has none."""
