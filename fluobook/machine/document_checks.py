"""What Talos 1.13 refuses in documents whose values refer to each other or have a form of their own, in its words.

Each function yields the problems of one kind of document, or of a part of the v1alpha1 document; `CHECKS` says which.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

Document = Mapping[str, Any]

_RESERVED_PRIORITIES = (0, 32500, 32766, 32767)
_KEY_LENGTH = 32
_SHORTEST_WATCHDOG = 10.0
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def parses(parse: Callable[[str], Any], text: Any) -> bool:
    """Whether a value can be read."""
    try:
        parse(str(text))
    except ValueError:
        return False
    return True


def seconds(duration: str) -> float:
    """The seconds of a duration such as 1m30s."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", duration)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def addresses_and_routes(document: Document) -> Iterator[str]:
    """Each address is given, and a default route has no destination."""
    for index, address in enumerate(document.get("addresses") or ()):
        if not address.get("address"):
            yield f"address {index} must be specified"
    for index, route in enumerate(document.get("routes") or ()):
        destination = str(route.get("destination") or "")
        if destination and not ip_network(destination, strict=False).prefixlen:
            yield f"route {index} destination must be a valid IP prefix"


def _routing_rule(document: Document) -> Iterator[str]:
    name = str(document.get("name") or "")
    if name and not name.isdigit():
        problem = f'strconv.ParseUint: parsing "{name}": invalid syntax'
        yield f"invalid name: must be priority parsable unsigned integer: {problem}"
    if not name.isdigit() or int(name) in _RESERVED_PRIORITIES:
        reserved = " ".join(map(str, _RESERVED_PRIORITIES))
        yield f"priority must be between 1 and 32765 (excluding reserved priorities [{reserved}])"
    if not document.get("table") and document.get("action") in (None, "", "unspec", "unicast"):
        yield "either table or a non-unicast action must be specified"


def _network_rule(document: Document) -> Iterator[str]:
    for ports in (document.get("portSelector") or {}).get("ports") or ():
        low, dash, high = str(ports).partition("-")
        if dash and int(low) > int(high):
            yield f"invalid port range: {ports}"
    for rule in document.get("ingress") or ():
        if not rule.get("subnet"):
            yield "invalid subnet: invalid Prefix"


def _key_problem(key: Any) -> str:
    try:
        decoded = base64.b64decode(str(key), validate=True)
    except binascii.Error:
        correct = re.match(r"(?:[A-Za-z0-9+/]{4})*", str(key))
        return f"illegal base64 data at input byte {correct.end() if correct else 0}"
    return "" if len(decoded) == _KEY_LENGTH else "invalid wireguard key length"


def _wireguard(document: Document) -> Iterator[str]:
    if (key := document.get("privateKey")) and (problem := _key_problem(key)):
        yield f"wireguard private key is invalid: {problem}"
    for index, peer in enumerate(document.get("peers") or ()):
        if not peer.get("publicKey"):
            yield f"wireguard peer public key must be specified (peer index {index})"
        elif problem := _key_problem(peer["publicKey"]):
            yield f"wireguard peer public key is invalid (peer index {index}): {problem}"


def encryption(document: Document) -> Iterator[str]:
    """A volume's encryption has a provider and a key in each slot."""
    spec = document.get("encryption")
    if not spec or not any(value not in (None, "", [], {}) for value in spec.values()):
        return
    if spec.get("provider") != "luks2":
        yield f"unsupported encryption provider: {spec.get('provider') or 'none'}"
    if not spec.get("keys"):
        yield "encryption keys are required"
    slots: set[int] = set()
    for key in spec.get("keys") or ():
        slot = key.get("slot") or 0
        if slot in slots:
            yield f"duplicate key slot {slot}"
        slots.add(slot)
        if not any(key.get(kind) is not None for kind in ("static", "nodeID", "kms", "tpm")):
            yield f"at least one encryption key type must be specified for slot {slot}"


def _system_volume(document: Document) -> Iterator[str]:
    yield from encryption(document)
    if document.get("name") == "STATE" and any((document.get("provisioning") or {}).values()):
        yield 'provisioning config is not allowed for the "STATE" volume'


def _event_sink(document: Document) -> Iterator[str]:
    endpoint = str(document.get("endpoint") or "")
    address = f"address {endpoint}: " if endpoint else ""
    colons = endpoint.rpartition("]")[2].count(":")
    if colons != 1:
        yield f"event sink endpoint: {address}{'too many colons' if colons else 'missing port'} in address"


def _memory(document: Document) -> Iterator[str]:
    """Expressions are checked for their brackets alone: they use a vocabulary that only the OOM handler has."""
    names = {"triggerExpression": "OOM trigger", "cgroupRankingExpression": "OOM cgroup scoring"}
    for field, name in names.items():
        text = re.sub(r"'[^']*'|\"[^\"]*\"", "", str(document.get(field) or ""))
        if any(text.count(left) != text.count(right) for left, right in ("()", "[]", "{}")):
            problem = f"ERROR: <input>:1:{len(text) + 1}: Syntax error: mismatched input '<EOF>'"
            yield f"{name} expression is invalid: {problem}"


def _watchdog(document: Document) -> Iterator[str]:
    if (timeout := document.get("timeout")) and seconds(str(timeout)) < _SHORTEST_WATCHDOG:
        yield "watchdog timeout: minimum value is 10s"


def kubespan(document: Document) -> Iterator[str]:
    """The filters of KubeSpan are prefixes, which `!` may negate."""
    for prefix in (document.get("filters") or {}).get("endpoints") or ():
        if not ("/" in str(prefix) and parses(ip_interface, str(prefix).removeprefix("!"))):
            yield f'KubeSpan endpoint filter is not valid: "{prefix}"'


def _image_verification(document: Document) -> Iterator[str]:
    for index, rule in enumerate(document.get("rules") or ()):
        verifiers = [name for name in ("keyless", "publicKey") if rule.get(name)]
        if not rule.get("image"):
            yield f"rule {index}: imagePattern must be specified"
        if rule.get("skip") and rule.get("deny"):
            yield f"rule {index}: skip and deny cannot both be true"
        if verifiers and (rule.get("skip") or rule.get("deny")):
            yield f"rule {index}: verifiers cannot be configured if skip or deny is true"
        if not verifiers and not rule.get("skip") and not rule.get("deny"):
            yield f"rule {index}: at least one verifier must be configured"


CHECKS: dict[str, Sequence[Callable[[Document], Iterator[str]]]] = {
    **dict.fromkeys(
        ["BondConfig", "BridgeConfig", "DummyLinkConfig", "LinkConfig", "VLANConfig", "VRFConfig"],
        (addresses_and_routes,),
    ),
    **dict.fromkeys(["RawVolumeConfig", "SwapVolumeConfig", "UserVolumeConfig"], (encryption,)),
    "EventSinkConfig": (_event_sink,),
    "ImageVerificationConfig": (_image_verification,),
    "KubeSpanConfig": (kubespan,),
    "NetworkRuleConfig": (_network_rule,),
    "OOMConfig": (_memory,),
    "RoutingRuleConfig": (_routing_rule,),
    "VolumeConfig": (_system_volume,),
    "WatchdogTimerConfig": (_watchdog,),
    "WireguardConfig": (_wireguard, addresses_and_routes),
}


def deprecated(machine: Document, *, worker: bool) -> Iterator[str]:
    """The fields of `machine` that documents of their own replace."""
    for label, spec in (machine.get("systemDiskEncryption") or {}).items():
        if spec is not None and not spec.get("keys"):
            yield f'partition "{label.upper()}": no encryption keys provided'
    network = machine.get("network") or {}
    yield from kubespan(network.get("kubespan") or {})
    for device in network.get("interfaces") or ():
        yield from _device(device or {}, worker=worker)


def _device(device: Document, *, worker: bool) -> Iterator[str]:
    name, shared = device.get("interface") or "", device.get("vip") or {}
    both = "[networking.os.device.interface], [networking.os.device.deviceSelector]"
    if not name and not device.get("deviceSelector"):
        yield f"{both}: required either config section to be set"
    elif name and device.get("deviceSelector"):
        yield f"{both}: config sections are mutually exclusive"
    for address in device.get("addresses") or ():
        if not parses(ip_interface, address):
            yield f'[networking.os.device.addresses] "{name}": failed to parse IP address "{address}"'
    if shared and not parses(ip_address, shared.get("ip") or ""):
        yield f'[networking.os.device.vip] failed to parse "{shared.get("ip") or ""}" as IP address'
    if shared and worker:
        yield "virtual (shared) IP is not allowed on non-controlplane nodes"
    yield from _device_routes(device)


def _device_routes(device: Document) -> Iterator[str]:
    for index, route in enumerate(device.get("routes") or ()):
        place = f"networking.os.device.route[{index}]"
        for field, parse in (("network", ip_interface), ("gateway", ip_address), ("source", ip_address)):
            if (value := route.get(field)) and not parses(parse, value):
                yield f'[{place}.{field}] "{value}": invalid network address'
        if not route.get("network") and not route.get("gateway"):
            yield f"[{place}]: either network or gateway should be set"


def endpoint_problem(endpoint: str) -> str:
    """Why the URL of the Kubernetes API cannot be decoded; "" if it can."""
    if re.match(r"[0-9][^/]*:", endpoint):
        return f'parse "{endpoint}": first path segment in URL cannot contain colon'
    if re.search(r"\s", endpoint):
        return f'parse "{endpoint}": invalid character " " in host name'
    host = endpoint.partition("://")[2].partition("/")[0].rpartition("]")[2]
    port = host.rpartition(":")[2] if ":" in host else ""
    return f'parse "{endpoint}": invalid port ":{port}" after host' if port and not port.isdigit() else ""
