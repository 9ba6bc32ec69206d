"""Checks the parameters of a request against Proxmox VE's own API description, with its messages.

`api.json` has the parameters of each request that the lab serves (`tools/pve_api.py` generates it), `formats.yaml` the
formats that it only names.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import TYPE_CHECKING, Any

from fluobook.params.cpus import MODELS
from fluobook_lab.data import table
from fluobook_lab.proxmox.options import PveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Schema = Mapping[str, Any]

_MISSING = "property is missing and it is not optional"
_UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"
_TYPES = {"boolean": r"[01]", "integer": r"[+-]?\d+", "number": r"[+-]?(\d+\.\d*|\.?\d+)([eE][+-]?\d+)?"}
_SHORTEST_PREFIX = 8


@cache
def _description() -> dict[str, Any]:
    return dict(json.loads(resources.files(__package__).joinpath("api.json").read_text()))


def _formats() -> Any:
    return table("proxmox/formats.yaml")


def _numbered(parameters: Schema) -> dict[str, Any]:
    """The parameters with their numbers: net0 to net31 for net[n]."""
    listed: dict[str, Any] = {}
    for name, schema in parameters.items():
        base = name.removesuffix("[n]")
        listed |= {f"{base}{n}": schema for n in range(_formats()["counts"][base])} if base != name else {name: schema}
    return listed


@cache
def vm_options() -> dict[str, Any]:
    """The options of a VM by name, with their schemas."""
    return {name: schema for name, schema in _numbered(_description()["options"]).items() if name != "vmid"}


@cache
def _parameters(request: str) -> dict[str, Any]:
    own, options = _description()["requests"][request], _description()["options"]
    return _numbered(own | options if "revert" in own or "archive" in own else own)


def shown(name: str, value: str) -> str | int:
    """An option's value as GET …/config returns it."""
    return int(value) if vm_options().get(name, {}).get("type") in {"boolean", "integer"} else value


def check(request: str, values: Mapping[str, str], version: str = "9.2") -> None:
    """Check the parameters of a request such as "PUT /nodes/{node}/qemu/{vmid}/config", those of its path included.

    Raises:
        PveError: 501, the version does not have the request; 400, with the problem of each parameter.
    """
    newer = {name for name, first in _formats()["since"].items() if _number(version) < _number(first)}
    if any(name in request for name in newer if name[0] == "/"):
        raise PveError(501, f"Method '{request}' not implemented")
    known = {name: schema for name, schema in _parameters(request).items() if name not in newer}
    problems = _object("", known, values)
    for name, value in values.items():
        if f"{name}={value}" in newer:
            enum = [each for each in known[name]["enum"] if f"{name}={each}" not in newer]
            problems[name] = _not_in(value, enum)
    if problems:
        raise PveError(400, "Parameter verification failed.", problems)


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]


def _not_in(value: str, enum: list[str]) -> str:
    return f"value '{value}' does not have a value in the enumeration '{', '.join(enum)}'"


def _object(path: str, schemas: Schema, values: Mapping[str, str]) -> dict[str, str]:
    """The problem of each property that is missing, unknown or wrong."""
    problems = {}
    for name, schema in schemas.items():
        if name not in values:
            if not schema.get("optional") and "alias" not in schema:
                problems[path + name] = _MISSING
        elif problem := _value(path + name, schema, values[name]):
            problems[path + name] = problem
        elif (protocols := schema.get("protocols")) and values.get("protocol") not in protocols:
            problems[path + name] = _UNKNOWN
        elif (needed := schema.get("requires")) and needed not in values:
            problems[path + needed] = f"missing property - '{path}{name}' requires this property"
    return problems | {path + name: _UNKNOWN for name in values if name not in schemas}


def _value(path: str, schema: Schema, value: str) -> str:
    """Why Proxmox VE refuses a value, "" for a valid one; the items of an array are joined by a null character."""
    if items := schema.get("items"):
        return next(filter(None, (_value(path, items, item) for item in value.split("\0"))), "")
    kind = schema.get("type", "string")
    if not re.fullmatch(_TYPES.get(kind, ".*"), value, re.DOTALL):
        return f"type check ('{kind}') failed - got '{value}'"
    properties = schema.get("properties") or _formats()["properties"].get(schema.get("format"))
    if schema.get("format") == "pve-qm-ide":
        properties = _description()["options"]["ide[n]"]["properties"]
    problem = _properties(path, properties, value) if properties else _format(schema.get("format", ""), value)
    return f"invalid format - {problem}" if problem else next(_limits(schema, value), "")


def _limits(schema: Schema, value: str) -> Iterator[str]:
    """The limits of a schema that a value exceeds."""
    if (pattern := schema.get("pattern")) and not re.fullmatch(pattern, value):
        yield "value does not match the regex pattern"
    if len(value) > int(schema.get("maxLength", len(value))):
        yield f"value may only be {schema['maxLength']} characters long"
    if re.fullmatch(_TYPES["number"], value):
        if float(value) > float(schema.get("maximum", value)):
            yield f"value must have a maximum value of {schema['maximum']}"
        if float(value) < float(schema.get("minimum", value)):
            yield f"value must have a minimum value of {schema['minimum']}"
    if (enum := schema.get("enum")) and value not in enum:
        yield _not_in(value, enum)


def _properties(path: str, schemas: Schema, text: str) -> str:
    """The problem of a property string, "" for a valid one."""
    values: dict[str, str] = {}
    default = next((name for name, schema in schemas.items() if schema.get("default") is True), "")
    for part in filter(str.strip, text.split(",")):
        name, sign, value = part.partition("=")
        if sign and not (name and value):
            return "missing key in comma-separated list property"
        if not sign:
            if not default:
                return "value without key, but schema does not define a default key"
            name, value = default, part
        schema = schemas.get(name)
        if schema is None:
            return f"invalid key in comma-separated list property: {name}"
        if key := schema.get("keyAlias"):
            if key in values:
                return f"key alias '{key}' is already defined"
            values[key] = name
        name = schema.get("alias", name)
        if name in values:
            return f"duplicate key in comma-separated list property: {name}"
        values[name] = _boolean(value) if schemas[name].get("type") == "boolean" else value
    problems = _object(f"{path}.", schemas, values)
    listed = (f"\n{name}: {problem}" for name, problem in problems.items())
    return "".join(["format error", *listed]) if problems else ""


def _boolean(text: str) -> str:
    """A boolean in a property string, which may be a word."""
    if re.fullmatch("1|on|yes|true", text, re.IGNORECASE):
        return "1"
    return "0" if re.fullmatch("0|off|no|false", text, re.IGNORECASE) else text


def _format(name: str, value: str) -> str:
    """The problem of a value in a named format, "" for a valid one; formats that are not known accept everything."""
    if name.endswith("-list"):
        items = filter(None, re.split(r"[,;\s]+", value))
        return next(filter(None, (_format(name.removesuffix("-list"), item) for item in items)), "")
    if name in _formats()["patterns"]:
        pattern, problem = _formats()["patterns"][name]
        return "" if re.fullmatch(pattern, value) else problem.format(value=value)
    if name in _ADDRESSES:
        words, networks, problem = _ADDRESSES[name]
        valid = value in words or _is_address(value, networks, prefix="-config" in name or "CIDR" in name)
        valid = valid or (name == "address" and not _format("dns-name", value))
        return "" if valid else f"value does not look like a valid {problem}"
    if name == "cpu-model" and not value.startswith("custom-") and value not in MODELS:
        return f"Built-in cputype '{value}' is not defined (missing 'custom-' prefix?)"
    if name == "vm-cpu-flags":
        flags = _formats()["cpu flags"].split()
        if any(flag[:1] not in "+-" or flag[1:] not in flags for flag in value.split(";")):
            return f"VM-specific CPU flags must be a subset of: {', '.join(flags)}"
    return ""


_ADDRESSES: dict[str, tuple[tuple[str, ...], tuple[type, ...], str]] = {
    "address": ((), (IPv4Address, IPv6Address), "address"),
    "CIDR": ((), (IPv4Address, IPv6Address), "CIDR network"),
    "CIDRv4": ((), (IPv4Address,), "CIDRv4 network"),
    "FullRangeCIDR": ((), (IPv4Address, IPv6Address), "CIDR network"),
    "ip": ((), (IPv4Address, IPv6Address), "IP address"),
    "ipv4": ((), (IPv4Address,), "IPv4 address"),
    "ipv6": ((), (IPv6Address,), "IPv6 address"),
    "pve-ipv4-config": (("dhcp", "manual"), (IPv4Address,), "ipv4 network configuration"),
    "pve-ipv6-config": (("auto", "dhcp", "manual"), (IPv6Address,), "ipv6 network configuration"),
}
"""By format: other words that are valid, the kinds of address, and how the message names it."""


def _is_address(text: str, kinds: tuple[type, ...], *, prefix: bool) -> bool:
    try:
        interface = ip_interface(text)
    except ValueError:
        return False
    long_enough = interface.network.prefixlen >= _SHORTEST_PREFIX and text.rpartition("/")[2].isdigit()
    return isinstance(interface.ip, kinds) and ("/" in text) == prefix and (long_enough or not prefix)
