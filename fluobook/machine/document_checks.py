"""What Talos refuses in documents whose values refer to each other or have a form of their own, in its words.

Each function yields the problems of one kind of document; `CHECKS` says which. What needs no code is in refusals.yaml.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]

_HIGHEST_PORT = 65535
_KEY_LENGTH = 32
_SHORTEST_WATCHDOG = 10.0
SIZE = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*([kmgtpe]?)(i?)b?", re.IGNORECASE)
_UNITS = " kmgtpe"
_OPERATIONS = ("create", "append", "overwrite")
_MANIFESTS = "/etc/kubernetes/manifests"
_CRI_FILE = "/etc/cri/conf.d/20-customization.part"
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def seconds(duration: str) -> float:
    """The seconds of a duration such as 1m30s."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", duration)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _network_rule(document: Document) -> Iterator[str]:
    texts = [str(ports) for ports in (document.get("portSelector") or {}).get("ports") or ()]
    parts = [match.groups() for text in texts if (match := re.fullmatch(r"(\d+)(?:-(\d+))?", text))]
    ranges = sorted((int(low), int(high or low)) for low, high in parts)
    for index, (low, high) in enumerate(ranges):
        first, last = ranges[index - 1] if index else (-1, -1)
        if low > high:
            yield f"invalid port range: {low}-{high}"
        elif low <= last:
            yield f"invalid port range: {low}-{high}, overlaps with {first}-{last}"


def _key_problem(key: Any) -> str:
    try:
        decoded = base64.b64decode(str(key), validate=True)
    except binascii.Error:
        correct = re.match(r"(?:[A-Za-z0-9+/]{4})*", str(key))
        return f"illegal base64 data at input byte {correct.end() if correct else 0}"
    return "" if len(decoded) == _KEY_LENGTH else "invalid wireguard key length"


def is_key(text: str) -> bool:
    """Whether a text is a WireGuard key."""
    return not _key_problem(text)


def _wireguard(document: Document) -> Iterator[str]:
    if (key := document.get("privateKey")) and (problem := _key_problem(key)):
        yield f"wireguard private key is invalid: {problem}"
    if not 0 <= (document.get("listenPort") or 0) <= _HIGHEST_PORT:
        yield "wireguard listen port must be between 0 and 65535"
    for index, peer in enumerate(document.get("peers") or ()):
        if not peer.get("publicKey"):
            yield f"wireguard peer public key must be specified (peer index {index})"
        elif problem := _key_problem(peer["publicKey"]):
            yield f"wireguard peer public key is invalid (peer index {index}): {problem}"


def _encryption(document: Document) -> Iterator[str]:
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


def _watchdog(document: Document) -> Iterator[str]:
    if (timeout := document.get("timeout")) and seconds(str(timeout)) < _SHORTEST_WATCHDOG:
        yield "watchdog timeout: minimum value is 10s"


def _sizes(document: Document) -> Iterator[str]:
    """The smallest size of a partition is no larger than its largest."""
    provisioning = document.get("provisioning") or {}
    if document.get("volumeType") in ("directory", "disk"):
        return
    least, most = (size(provisioning.get(key)) for key in ("minSize", "maxSize"))
    if least is not None and least < 0:
        yield "min size cannot be negative"
    elif least and most is not None and 0 <= most < least:
        yield "min size is greater than max size"


def size(value: Any) -> float | None:
    """Bytes; None for a share of the disk, and for what is no size."""
    match = SIZE.fullmatch("" if value is None else str(value))
    return float(match[1]) * (1024 if match[3] else 1000) ** _UNITS.index(match[2].lower() or " ") if match else None


def _subnets(document: Document) -> Iterator[str]:
    pods, services = document.get("podSubnets") or (), document.get("serviceSubnets") or ()
    if pods and services and len(pods) != len(services):
        yield "the number of pod subnets must match the number of service subnets"


_VOLUMES = ("RawVolumeConfig", "SwapVolumeConfig", "UserVolumeConfig", "VolumeConfig")
CHECKS: Mapping[str, Sequence[Callable[[Document], Iterator[str]]]] = {
    **dict.fromkeys(_VOLUMES, (_sizes, _encryption)),
    "KubeNetworkConfig": (_subnets,),
    "NetworkRuleConfig": (_network_rule,),
    "WatchdogTimerConfig": (_watchdog,),
    "WireguardConfig": (_wireguard,),
}


def machine(settings: Document) -> Iterator[str]:
    """What is wrong with lists of `machine` in the v1alpha1 document whose items depend on each other."""
    for disk in settings.get("disks") or ():
        if any(str(part.get("size") or 0) == "0" for part in (disk.get("partitions") or ())[:-1]):
            problem = "is set to occupy full disk, but it's not the last partition in the list"
            yield f'partition for disk "{disk.get("device") or ""}" {problem}'
    for label, spec in sorted((settings.get("systemDiskEncryption") or {}).items()):
        yield from (f'partition "{label.upper()}": {problem}' for problem in _slots((spec or {}).get("keys") or ()))
    images = [str(each.get("image")) for each in (settings.get("install") or {}).get("extensions") or ()]
    yield from (f'duplicate system extension "{image}"' for image in sorted(set(images)) if images.count(image) > 1)
    yield from _links((settings.get("network") or {}).get("interfaces") or ())


def unwritable_files(settings: Document) -> Iterator[str]:
    """Why a node would not boot with the files of `machine`: Talos accepts them, and restarts for ever.

    New files are in /var, but for static pods and containerd's own file, which Talos handles otherwise.
    """
    for file in settings.get("files") or ():
        path, operation = str(file.get("path") or ""), str(file.get("op") or "")
        handled = path == _CRI_FILE or posixpath.dirname(path) == _MANIFESTS
        if operation not in _OPERATIONS:
            yield f'unknown operation for file "{path}": "{operation}"'
        elif operation == "create" and not handled and path.lstrip("/").partition("/")[0] != "var":
            yield f'create operation not allowed outside of /var: "{path}"'


def _slots(keys: Sequence[Document]) -> Iterator[str]:
    slots = [key.get("slot") or 0 for key in keys]
    yield from (f"encryption key slot {slot} is already in use" for slot in sorted(set(slots)) if slots.count(slot) > 1)
    for slot, key in zip(slots, keys, strict=True):
        if not any(key.get(kind) is not None for kind in ("static", "nodeID", "kms", "tpm")):
            yield f"encryption key at slot {slot} doesn't have the configuration parameters"


def _links(interfaces: Sequence[Document]) -> Iterator[str]:
    """An interface is part of one bond or bridge, and then has no address."""
    owners: dict[str, str] = {}
    for each in interfaces:
        name = each.get("interface") or ""
        for part in (each.get("bridge") or each.get("bond") or {}).get("interfaces") or ():
            if owners.setdefault(part, name) != name:
                yield f'interface "{part}" is declared as part of two separate links: "{owners[part]}" and "{name}"'
    for each in interfaces:
        if each.get("interface") in owners and any(each.get(key) for key in ("dhcp", "cidr", "addresses", "vip")):
            problem = "bonded/bridged interface shouldn't have any addressing methods configured"
            yield f'[networking.os.device] "{each["interface"]}": {problem}'


def endpoint_problem(endpoint: str) -> str:
    """Why the URL of the Kubernetes API cannot be decoded; "" if it can."""
    if re.match(r"[0-9][^/]*:", endpoint):
        return f'parse "{endpoint}": first path segment in URL cannot contain colon'
    if re.search(r"\s", endpoint):
        return f'parse "{endpoint}": invalid character " " in host name'
    host = endpoint.partition("://")[2].partition("/")[0].rpartition("]")[2]
    port = host.rpartition(":")[2] if ":" in host else ""
    return f'parse "{endpoint}": invalid port ":{port}" after host' if port and not port.isdigit() else ""
