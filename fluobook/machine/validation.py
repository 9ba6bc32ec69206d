"""What Talos 1.13 refuses in a machine configuration, in Talos' words, without a node.

`fields.yaml` has the fields of each document type and their types; `tools/talos_fields.py` generates it from Talos' own
JSON Schema. The schema omits deprecated fields: Talos still reads them, so they are accepted here, without a check of
their content. `refusals.yaml` has what Talos demands beyond the schema.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from ipaddress import ip_interface, ip_network
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from fluobook.machine import cel, document_checks
from fluobook.params.fields import EFFECTS, label_value_problem, qualified_name_problem

_MAIN = "v1alpha1.Config"
_SCALARS: dict[str, tuple[type, ...]] = {
    "string": (str, int, float, bool, dt.date),
    "boolean": (bool,),
    "integer": (int,),
    "unsigned": (int,),
}
_BOOLEANS = ("y", "Y", "yes", "on", "n", "N", "no", "off")
"""Words that Talos reads as a boolean."""
_DNS_NAME = re.compile(r"([a-zA-Z0-9_][a-zA-Z0-9_-]{0,62})(\.[a-zA-Z0-9_][a-zA-Z0-9_-]{0,62})*[._]?")
_LONGEST_VOLUME = 34
_ROLES = ("os:admin", "os:operator", "os:reader", "os:etcd:backup", "os:meta:writer", "os:impersonator")
_SIZE = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*([kmgtpe]?)(i?)b?", re.IGNORECASE)
_UNITS = " kmgtpe"
_SYSTEM_VOLUMES = ("STATE", "EPHEMERAL", "IMAGECACHE")


class Refusal(NamedTuple):
    """One reason for which Talos refuses a configuration."""

    document: str
    """The document, such as "UserVolumeConfig/longhorn"; "" where two documents contradict each other."""
    message: str

    def __str__(self) -> str:
        """The reason for a person, on one line."""
        return f"{self.document}: {self.message}" if self.document else self.message


@cache
def _table(name: str) -> Any:
    return yaml.load(resources.files(__package__).joinpath(name).read_text(), Loader=yaml.CSafeLoader)


@cache
def fields() -> dict[str, dict[str, Any]]:
    """The fields of each document type, with their types: a name, a list with one name, or the values allowed."""
    known = {name: dict(own) for name, own in _table("fields.yaml").items()}
    for further in (_table("deprecated_fields.yaml"), _table("refusals.yaml")["formats"]):
        for name, own in further.items():
            known.setdefault(name, {}).update(own)
    for name, own in known.items():
        if name.startswith("network."):
            known[name] = {key: "unsigned" if kind == "integer" else kind for key, kind in own.items()}
    return known


def identity(document: Mapping[str, Any]) -> str:
    """The name by which Talos tells a document from others: kind and name."""
    return f"{document['kind']}/{document.get('name') or ''}" if document.get("kind") else _MAIN


def decoding_problem(document: Mapping[str, Any]) -> str:
    """Why Talos cannot decode a document (unknown fields, wrong types); "" if it can."""
    kind, version = document.get("kind"), document.get("apiVersion")
    if kind and not version:
        return "missing apiVersion"
    type_name = _types().get(str(kind or ""))
    if type_name is None or (kind and version != "v1alpha1"):
        return f'"{kind}" "{version}": not registered'
    try:
        unknown = dict(_unknown_keys(document, type_name, "")) if type_name else {}
    except ValueError as error:
        return f"yaml: unmarshal errors:\n  {error}"
    endpoint = str(_at(document, "cluster.controlPlane.endpoint") or "")
    if problem := document_checks.endpoint_problem(endpoint):
        return f"yaml: construct errors:\n  {problem}"
    listed = yaml.dump(unknown, Dumper=yaml.CSafeDumper, indent=4)
    return f"unknown keys found during decoding:\n{listed}" if unknown else ""


@cache
def _types() -> dict[str, str]:
    """The type of each kind of document; "" for a kind that the schema does not have."""
    kinds = {kind: name for name, own in fields().items() for kind in _at(own, "kind.enum") or ()}
    return {"": _MAIN, **kinds, **_table("refusals.yaml")["kinds"]}


def _unknown_keys(value: Mapping[str, Any], kind: str, path: str) -> Iterator[tuple[str, Any]]:
    known = fields()[kind]
    for key, child in value.items():
        if key not in known:
            yield str(key), child
        elif unknown := _unknown_in(child, known[key], f"{path}.{key}".lstrip(".")):
            yield str(key), unknown


def _unknown_in(value: Any, kind: Any, path: str) -> Any:
    """The part of a value that no field accepts; a ValueError if the value has another type than its field."""
    if value is None or kind == "any":
        return None
    if kind in ("size", "size or share") or (isinstance(kind, dict) and "map" not in kind):
        _require_allowed(value, kind, path)
        return None
    if not _has_type(value, kind):
        name = f"[]{kind[0]}" if isinstance(kind, list) else "a mapping" if isinstance(kind, dict) else kind
        raise ValueError(f"{path}: cannot unmarshal a {type(value).__name__} into {name}")
    if isinstance(kind, list):
        items = enumerate(value)
        return [unknown for n, item in items if (unknown := _unknown_in(item, kind[0], f"{path}[{n}]"))]
    if isinstance(kind, dict):
        return {k: part for k, v in value.items() if (part := _unknown_in(v, kind["map"], f"{path}.{k}"))}
    if kind != "pair":
        return dict(_unknown_keys(value, kind, path)) if kind in fields() else None
    for key in ("crt", "key"):
        try:
            base64.b64decode(str(value.get(key) or ""), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"{path}.{key}: illegal base64 data") from None
    return {key: child for key, child in value.items() if key not in ("crt", "key")}


def _has_type(value: Any, kind: Any) -> bool:
    """Whether Talos reads a value as this type."""
    if isinstance(kind, list):
        return isinstance(value, list)
    if isinstance(kind, dict) or kind not in _SCALARS:
        return isinstance(value, dict)
    if kind == "boolean":
        return isinstance(value, bool) or value in _BOOLEANS
    if kind == "unsigned":
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return isinstance(value, _SCALARS[kind]) and (kind == "string" or not isinstance(value, bool))


def _require_allowed(value: Any, limits: str | Mapping[str, Any], path: str) -> None:
    if isinstance(value, dict | list):
        raise ValueError(f"{path}: cannot unmarshal a {type(value).__name__} into string")  # noqa: TRY004
    if isinstance(limits, str):
        _require_size(str(value).strip(), path, share=limits != "size")
        return
    allowed = limits.get("enum")
    if allowed and value not in allowed:
        raise ValueError(f"{path}: {value} does not belong to the values {', '.join(map(str, allowed))}")
    if "pattern" in limits and value != "" and not re.search(limits["pattern"], str(value)):
        raise ValueError(f'{path}: "{value}" does not have the form {limits["pattern"]}')


def _require_size(text: str, path: str, *, share: bool) -> None:
    percentage = re.fullmatch(r"-?(\d+)(?:\.\d+)?%", text) if share else None
    if percentage and not 0 <= float(text[:-1]) <= 100:  # noqa: PLR2004 - per cent
        raise ValueError(f"{path}: percentage must be between 0 and 100, got {text[:-1]}")
    if text and not percentage and not _SIZE.fullmatch(text):
        raise ValueError(f"{path}: unhandled size name: {text.lower().lstrip('-.0123456789 ')}")


def refusals(documents: Sequence[Mapping[str, Any]]) -> list[Refusal]:
    """Every reason for which Talos 1.13 on nocloud refuses a configuration that it can decode.

    Args:
        documents: all documents of the configuration, the one without a kind (v1alpha1) among them or not.
    """
    documents = [_filled(document) for document in documents]
    main: Mapping[str, Any] = next((document for document in documents if not document.get("kind")), {})
    others = [document for document in documents if document.get("kind")]
    result = [Refusal(_MAIN, message) for message in (_main_problems(main) if main else ())]
    result += [Refusal(identity(each), message) for each in others for message in _document_problems(each)]
    conflicts = (_conflict(main, document) for document in others) if main else ()
    return result + [Refusal("", message) for message in conflicts if message]


def _filled(value: Any) -> Any:
    """A value whose lists have empty items where theirs are null, as Talos reads them."""
    if isinstance(value, list):
        return [{} if item is None else _filled(item) for item in value]
    return {key: _filled(item) for key, item in value.items()} if isinstance(value, dict) else value


def _at(data: Any, path: str) -> Any:
    for key in path.split("."):
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _conflict(main: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """What the v1alpha1 document sets although a document of its own sets it too."""
    for path, message in _table("refusals.yaml")["conflicts"].get(document["kind"], {}).items():
        if _at(main, path):
            return str(message)
    return ""


def _document_problems(document: Mapping[str, Any]) -> Iterator[str]:
    kind, rules = document["kind"], _table("refusals.yaml")
    for path, message in rules["required"].get(kind, {}).items():
        if _at(document, path) in (None, "", [], {}):
            yield message
    for path, objects, name in rules["expressions"].get(kind, ()):
        text = _at(document, path)
        if text and (problem := cel.problem(str(text), rules["objects"][objects])):
            yield f"{name} is invalid: {problem}"
    for path, form, message in rules["forms"].get(kind, ()):
        value = _at(document, path)
        if value not in (None, "") and not _has_form(str(value), form):
            yield message.format(value=value)
            break
    for path, (least, most, message) in rules["limits"].get(kind, {}).items():
        if (number := _at(document, path)) is not None and not least <= number <= most:
            yield message
    checks = (_DOCUMENT_CHECKS.get(kind), *document_checks.CHECKS.get(kind, ()))
    for check in filter(None, checks):
        yield from check(document)


def _has_form(text: str, form: str) -> bool:
    if form in ("address", "prefix"):
        return ("/" in text) == (form == "prefix") and document_checks.parses(ip_interface, text)
    return bool(re.search(form, text))


def _registry_mirror(document: Mapping[str, Any]) -> Iterator[str]:
    for index, endpoint in enumerate(document.get("endpoints") or ()):
        scheme = urlsplit(str(endpoint.get("url") or "")).scheme
        if not endpoint.get("url"):
            yield f"endpoints[{index}].url must be specified"
        elif scheme not in {"http", "https"}:
            yield f'endpoints[{index}].url has unsupported scheme: "{scheme}"'


def _hostname(document: Mapping[str, Any]) -> Iterator[str]:
    is_automatic = document.get("auto") not in (None, "", "off")
    if document.get("hostname") and is_automatic:
        yield "'auto' and 'hostname' cannot be set at the same time"
    elif not document.get("hostname") and not document.get("auto"):
        yield "either 'auto' or 'hostname' must be set"


def _dhcp(document: Mapping[str, Any]) -> Iterator[str]:
    is_duid = document.get("clientIdentifier") == "duid"
    if is_duid != bool(document.get("duidRaw")):
        yield f"duidRaw {'must' if is_duid else 'can only'} be set if clientIdentifier is 'duid'"


def _time_sync(document: Mapping[str, Any]) -> Iterator[str]:
    if document.get("ntp") is not None and document.get("ptp") is not None:
        yield "only one of ntp or ptp configuration can be specified"


def _environment(document: Mapping[str, Any]) -> Iterator[str]:
    for name in document.get("variables") or {}:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)):
            yield f'invalid environment variable name: "{name}"'


def _extension_service(document: Mapping[str, Any]) -> Iterator[str]:
    name = document.get("name")
    if not document.get("configFiles") and not document.get("environment"):
        yield f'no config files found for extension "{name}"'
    for file in document.get("configFiles") or ():
        if not file.get("content"):
            yield f'extension content is required for extension "{name}"'
        if not file.get("mountPath"):
            yield f'extension mount path is required for extension "{name}"'


def _system_volume(document: Mapping[str, Any]) -> Iterator[str]:
    if document.get("name") not in _SYSTEM_VOLUMES:
        yield f"only [{' '.join(f'{chr(34)}{name}{chr(34)}' for name in _SYSTEM_VOLUMES)}] volumes are supported"
    else:
        yield from _sizes(document.get("provisioning") or {}, required=False)


def _external_volume(document: Mapping[str, Any]) -> Iterator[str]:
    yield from _named_volume(document)
    if not document.get("filesystemType"):
        yield "invalid filesystem type: none"


def _named_volume(document: Mapping[str, Any]) -> Iterator[str]:
    name = str(document.get("name") or "")
    if len(name) > _LONGEST_VOLUME:
        yield f"name must be between 1 and {_LONGEST_VOLUME} characters long"
    if not re.fullmatch(r"[A-Za-z0-9-]*", name):
        yield "name can only contain lowercase and uppercase ASCII letters, digits, and hyphens"


def _provisioned_volume(document: Mapping[str, Any]) -> Iterator[str]:
    yield from _named_volume(document)
    provisioning, volume = document.get("provisioning") or {}, document.get("volumeType") or "partition"
    if volume == "directory":
        parts = ("provisioning", "encryption", "filesystem", "mount")
        yield from (f"{part} spec is invalid for volumeType directory" for part in parts if document.get(part))
        return
    if not _at(provisioning, "diskSelector.match"):
        yield "disk selector is required"
    if volume != "disk":
        yield from _sizes(provisioning, required=True)
    elif {"minSize", "maxSize", "grow"} & set(provisioning):
        yield "min size, max size and grow are not supported"
    if _at(document, "filesystem.projectQuotaSupport") and _at(document, "filesystem.type") not in (None, "xfs"):
        yield "project quota support is only available for xfs filesystem"


def _sizes(provisioning: Mapping[str, Any], *, required: bool) -> Iterator[str]:
    smallest, largest = (provisioning.get(key) for key in ("minSize", "maxSize"))
    if required and not smallest and not largest:
        yield "min size or max size is required"
    least, most = _size(smallest), _size(largest)
    if least is not None and least < 0:
        yield "min size cannot be negative"
    elif least and most and 0 < most < least:
        yield "min size is greater than max size"


_DOCUMENT_CHECKS: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "DHCPv4Config": _dhcp,
    "DHCPv6Config": _dhcp,
    "EnvironmentConfig": _environment,
    "ExistingVolumeConfig": _named_volume,
    "ExtensionServiceConfig": _extension_service,
    "ExternalVolumeConfig": _external_volume,
    "HostnameConfig": _hostname,
    "RawVolumeConfig": _provisioned_volume,
    "RegistryMirrorConfig": _registry_mirror,
    "SwapVolumeConfig": _provisioned_volume,
    "TimeSyncConfig": _time_sync,
    "UserVolumeConfig": _provisioned_volume,
    "VolumeConfig": _system_volume,
}


def _size(value: Any) -> float | None:
    """Bytes; None for a share of the disk, and for what is no size."""
    match = _SIZE.fullmatch(str(value or ""))
    return float(match[1]) * (1024 if match[3] else 1000) ** _UNITS.index(match[2].lower() or " ") if match else None


def _main_problems(main: Mapping[str, Any]) -> Iterator[str]:
    machine, cluster = main.get("machine") or {}, main.get("cluster") or {}
    if not machine:
        yield "machine instructions are required"
        return
    yield from _cluster(cluster)
    authority = machine.get("ca") or {}
    if not authority and not machine.get("acceptedCAs"):
        yield "issuing CA or some accepted CAs are required (.machine.ca, machine.acceptedCAs)"
    if machine.get("type") in {"controlplane", "init"}:
        yield from _control_plane(authority, cluster)
    elif machine.get("type") in {"worker", "join"}:
        yield from _worker(authority, machine, cluster)
    else:
        yield f'unknown machine type "{machine.get("type") or ""}"'
    kubelet = machine.get("kubelet") or {}
    yield from _subnets("kubelet nodeIP subnet", _at(kubelet, "nodeIP.validSubnets"))
    for field in sorted(set(_table("refusals.yaml")["reserved"].split()) & set(kubelet.get("extraConfig") or ())):
        yield f'kubelet configuration field "{field}" can\'t be overridden'
    yield from (f"invalid machine node labels: {problem}" for problem in label_problems(machine.get("nodeLabels")))
    problems = map(qualified_name_problem, sorted(map(str, machine.get("nodeAnnotations") or ())))
    yield from (f"invalid machine node annotations: {problem}" for problem in problems if problem)
    yield from (f"invalid machine node taints: {problem}" for problem in taint_problems(machine.get("nodeTaints")))
    yield from _features(machine)
    yield from document_checks.deprecated(machine, worker=machine.get("type") in {"worker", "join"})
    if main.get("persist") is False:
        yield ".persist should be enabled"


def _features(machine: Mapping[str, Any]) -> Iterator[str]:
    dns = _at(machine, "features.hostDNS") or {}
    if dns.get("forwardKubeDNSToHost") and not dns.get("enabled"):
        yield "feature hostDNS.forwardKubeDNSToHost requires hostDNS.enabled to be true (.machine.features.hostDNS)"
    access = _at(machine, "features.kubernetesTalosAPIAccess") or {}
    for role in (access.get("allowedRoles") or ()) if access.get("enabled") else ():
        if role not in _ROLES:
            yield f'invalid role "{role}" in allowed roles for Kubernetes Talos API Access'
    order = _at(machine, "features.nodeAddressSortAlgorithm")
    if order and order not in {"v1", "v2"}:
        yield f"invalid node address sort algorithm: {order} does not belong to AddressSortAlgorithm values"
    for destination in _at(machine, "logging.destinations") or ():
        scheme = urlsplit(str(destination.get("endpoint") or "")).scheme
        if scheme not in {"tcp", "udp"}:
            yield f'unexpected logging endpoint scheme "{scheme}"'
        if destination.get("format") != "json_lines":
            yield f'unknown logging format "{destination.get("format") or ""}"'


def label_problems(labels: Mapping[str, Any] | None) -> Iterator[str]:
    """What is wrong with labels of a node, by Kubernetes' rules."""
    for key, value in sorted((labels or {}).items()):
        if problem := qualified_name_problem(str(key)):
            yield problem
        if problem := label_value_problem(str(value)):
            yield problem


def taint_problems(taints: Mapping[str, Any] | None) -> Iterator[str]:
    """What is wrong with taints of a node, each `value:effect` or `effect` by its key."""
    for key, taint in sorted((taints or {}).items()):
        value, _, effect = str(taint).rpartition(":")
        if problem := qualified_name_problem(str(key)):
            yield problem
        elif effect not in EFFECTS:
            yield f'invalid taint effect: "{effect}"'
        elif problem := label_value_problem(value):
            yield problem


def _subnets(name: str, subnets: Iterable[str] | None) -> Iterator[str]:
    for subnet in subnets or ():
        network = str(subnet).removeprefix("!")
        if not document_checks.parses(lambda text: ip_network(text, strict=False), network):
            yield f'{name} is not valid: "{network}"'


def _cluster(cluster: Mapping[str, Any]) -> Iterator[str]:
    endpoint = str(_at(cluster, "controlPlane.endpoint") or "")
    if not cluster:
        yield "cluster instructions are required"
    elif _at(cluster, "controlPlane.endpoint") is None:
        yield "cluster controlplane endpoint is required"
    elif not urlsplit(endpoint).hostname:
        yield "invalid controlplane endpoint: hostname must not be blank"
    yield from _services(cluster)
    domain = str(_at(cluster, "network.dnsDomain") or "")
    if domain and not _DNS_NAME.fullmatch(domain):
        yield f'"{domain}" is not a valid DNS name'
    names = [str(entry.get("name") or "").strip() for entry in cluster.get("inlineManifests") or ()]
    if "" in names:
        yield "inline manifest name can't be empty"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f'inline manifest name "{name}" is duplicate'


def _services(cluster: Mapping[str, Any]) -> Iterator[str]:
    for url in _at(cluster, "externalCloudProvider.manifests") or ():
        if not urlsplit(str(url)).hostname:
            yield f'invalid external cloud provider manifest url "{url}": hostname must not be blank'
    service = str(_at(cluster, "discovery.registries.service.endpoint") or "")
    if _at(cluster, "discovery.enabled") and service and not urlsplit(service).scheme:
        yield f'cluster discovery service registry endpoint is invalid: parse "{service}": invalid URI for request'
    if _at(cluster, "discovery.enabled") and not _at(cluster, "discovery.registries.service.disabled"):
        for key in ("id", "secret"):
            if not cluster.get(key):
                yield f"cluster discovery service requires .cluster.{key}"


def _control_plane(authority: Mapping[str, Any], cluster: Mapping[str, Any]) -> Iterator[str]:
    if not authority:
        yield "issuing CA is required (.machine.ca)"
    elif not authority.get("key"):
        yield "issuing CA key is required for controlplane nodes (.machine.ca.key)"
    cni = _at(cluster, "network.cni")
    if cni is not None and cni.get("name") not in {"flannel", "custom", "none"}:
        yield 'cni name should be one of ["flannel", "custom", "none"]'
    elif cni and cni.get("urls") and cni["name"] != "custom":
        yield f'"urls" field should be empty for "{cni["name"]}" CNI'
    etcd = cluster.get("etcd") or {}
    if etcd and not _at(etcd, "ca.crt"):
        yield "key/cert combination should not be empty"
    yield from _subnets("etcd advertised subnet", etcd.get("advertisedSubnets"))
    yield from _subnets("etcd listen subnet", etcd.get("listenSubnets") or etcd.get("advertisedSubnets"))


def _worker(authority: Mapping[str, Any], machine: Mapping[str, Any], cluster: Mapping[str, Any]) -> Iterator[str]:
    if authority.get("key"):
        yield "issuing Talos API CA key is not allowed on non-controlplane nodes (.machine.ca)"
    if _at(cluster, "ca.key"):
        yield "issuing Kubernetes API CA key is not allowed on non-controlplane nodes (.cluster.ca)"
    if cluster.get("etcd") is not None:
        yield "etcd config is only allowed on control plane machines"
    if _at(machine, "features.kubernetesTalosAPIAccess.enabled"):
        yield "feature Kubernetes Talos API Access can only be enabled on control plane machines"
