"""What Talos 1.13 and 1.14 refuse in a machine configuration, in Talos' words, without a node.

`fields.yaml` has the fields of each document type and their types, and `fields_1.14.yaml` what 1.14 adds;
`tools/talos_fields.py` generates them from Talos' own JSON Schemas. The schemas omit deprecated fields: Talos still
reads them, so they are accepted here, without a check of their content. `refusals.yaml` and `refusals_1.14.yaml` have
what Talos demands beyond the schemas.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from ipaddress import ip_interface, ip_network
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from fluobook.files import packaged
from fluobook.machine import cel, document_checks
from fluobook.machine.contracts import has_documents
from fluobook.params.fields import EFFECTS, label_value_problem, qualified_name_problem
from fluobook.params.versions import ordered

_MAIN = "v1alpha1.Config"
_PEM = {"pair": ("crt", "key"), "certificate": ("crt",)}
"""Certificates in a configuration, and their fields."""
_SCALARS: dict[str, tuple[type, ...]] = {
    "string": (str, int, float, bool, dt.date),
    "boolean": (bool,),
    "integer": (int,),
    "unsigned": (int,),
}
_BOOLEANS = ("y", "Y", "yes", "on", "n", "N", "no", "off")
"""Words that Talos reads as a boolean."""

_IN_ONE_CASE = re.compile(r"machine\.type|cluster\.network\.cni\.name|machine\.logging\..*format")
"""Where Talos compares words as they are; it reads those of other fields in upper and lower case."""
_WORDS = ("auto", "provider", "volumeType")
"""Fields whose words other checks compare."""


class Refusal(NamedTuple):
    """One reason for which Talos refuses a configuration."""

    document: str
    """The document, such as "UserVolumeConfig/longhorn"; "" where two documents contradict each other."""
    message: str

    def __str__(self) -> str:
        """The reason for a person, on one line."""
        return f"{self.document}: {self.message}" if self.document else self.message


_NEWER = packaged(__package__, "refusals_1.14.yaml")
_OLDER = packaged(__package__, "refusals.yaml")
_RULES = _NEWER | {
    name: [*part, *_NEWER.get(name, [])] if isinstance(part, list) else part | _NEWER.get(name, {})
    for name, part in _OLDER.items()
}
OLDEST = "1.13"
"""The version of Talos whose rules apply unless another is named; those for 1.12 are taken to be the same, but for the
lists in `extraArgs`, which are new in 1.13."""
_LISTS_FROM = (1, 13)
_ARGUMENTS = {"map": "argument"}


@cache
def fields(newer: bool = False, *, lists: bool = True) -> dict[str, dict[str, Any]]:
    """The fields of each document type, with their types: a name, a list with one name, or the values allowed.

    Args:
        newer: with those that Talos 1.14 adds.
        lists: whether an argument of a component may be a list of texts.
    """
    known = {name: dict(own) for name, own in packaged(__package__, "fields.yaml").items()}
    added = [packaged(__package__, "fields_1.14.yaml"), _NEWER["formats"]] if newer else []
    for further in (packaged(__package__, "deprecated_fields.yaml"), _OLDER["formats"], *added):
        for name, own in further.items():
            known.setdefault(name, {}).update(own)
    for name, own in known.items():
        if name.startswith("network."):
            known[name] = {key: "unsigned" if kind == "integer" else kind for key, kind in own.items()}
        elif not lists:
            known[name] = {key: {"map": "string"} if kind == _ARGUMENTS else kind for key, kind in own.items()}
    return known


def identity(document: Mapping[str, Any]) -> str:
    """The name by which Talos tells a document from others: kind and name."""
    return f"{document['kind']}/{document.get('name') or ''}" if document.get("kind") else _MAIN


def decoding_problem(document: Mapping[str, Any], talos: str = OLDEST) -> str:
    """Why Talos cannot decode a document (unknown fields, wrong types); "" if it can.

    Args:
        document: the document.
        talos: the version of Talos, such as "1.13" or "v1.14.1".
    """
    kind, version = document.get("kind"), document.get("apiVersion")
    if kind and not version:
        return "missing apiVersion"
    known = fields(has_documents(talos), lists=ordered(talos) >= _LISTS_FROM)
    type_name = _types(has_documents(talos)).get(str(kind or ""))
    if type_name is None or (kind and version != "v1alpha1"):
        return f'"{kind}" "{version}": not registered'
    try:
        unknown = dict(_unknown_keys(document, type_name, "", known)) if type_name else {}
    except ValueError as error:
        return f"yaml: unmarshal errors:\n  {error}"
    endpoint = str(_at(document, "cluster.controlPlane.endpoint") or "")
    if problem := document_checks.endpoint_problem(endpoint):
        return f"yaml: construct errors:\n  {problem}"
    listed = yaml.dump(unknown, Dumper=yaml.CSafeDumper, indent=4)
    return f"unknown keys found during decoding:\n{listed}" if unknown else ""


@cache
def _types(newer: bool) -> dict[str, str]:
    """The type of each kind of document; "" for a kind that the schema does not have."""
    kinds = {kind: name for name, own in fields(newer).items() for kind in _at(own, "kind.enum") or ()}
    return {"": _MAIN, **kinds, **(_RULES if newer else _OLDER)["kinds"]}


Known = Mapping[str, Mapping[str, Any]]


def _unknown_keys(value: Mapping[str, Any], kind: str, path: str, known: Known) -> Iterator[tuple[str, Any]]:
    for key, child in value.items():
        if key not in known[kind]:
            yield str(key), child
        elif unknown := _unknown_in(child, known[kind][key], f"{path}.{key}".lstrip("."), known):
            yield str(key), unknown


def _unknown_in(value: Any, kind: Any, path: str, known: Known) -> Any:
    """The part of a value that no field accepts; a ValueError if the value has another type than its field."""
    if value is None or kind == "any":
        return None
    if (isinstance(kind, str) and kind in _CHECKED) or (isinstance(kind, dict) and "map" not in kind):
        _require_allowed(value, kind, path)
        return None
    if not _has_type(value, kind):
        name = f"[]{kind[0]}" if isinstance(kind, list) else "a mapping" if isinstance(kind, dict) else kind
        raise ValueError(f"{path}: cannot unmarshal a {type(value).__name__} into {name}")
    if isinstance(kind, list):
        items = enumerate(value)
        return [unknown for n, item in items if (unknown := _unknown_in(item, kind[0], f"{path}[{n}]", known))]
    if isinstance(kind, dict):
        return {k: part for k, v in value.items() if (part := _unknown_in(v, kind["map"], f"{path}.{k}", known))}
    if kind not in _PEM:
        return dict(_unknown_keys(value, kind, path, known)) if kind in known else None
    for key in _PEM[kind]:
        _unknown_in(value.get(key), "base64", f"{path}.{key}", known)
    return {key: child for key, child in value.items() if key not in _PEM[kind]}


def _require_base64(text: str, path: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{path}: illegal base64 data") from None


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
    if isinstance(value, list) and limits == "argument" and not any(isinstance(item, dict | list) for item in value):
        return
    if isinstance(value, dict | list):
        raise ValueError(f"{path}: cannot unmarshal a {type(value).__name__} into string")  # noqa: TRY004
    if isinstance(limits, str):
        _CHECKED[limits](str(value).strip(), path)
        return
    allowed = limits.get("enum")
    if allowed and value not in allowed and (_IN_ONE_CASE.fullmatch(path) or str(value).lower() not in allowed):
        raise ValueError(f"{path}: {value} does not belong to the values {', '.join(map(str, allowed))}")
    form = _SCHEMA_FORMS.get(limits.get("pattern", ""), limits.get("pattern"))
    if form and value != "" and not _has_form(str(value), form):
        raise ValueError(f'{path}: "{value}" does not have the form {limits["pattern"]}')


def _require_size(text: str, path: str, *, share: bool = False) -> None:
    percentage = re.fullmatch(r"-?(\d+)(?:\.\d+)?%", text) if share else None
    if percentage and not 0 <= float(text[:-1]) <= 100:  # noqa: PLR2004 - per cent
        raise ValueError(f"{path}: percentage must be between 0 and 100, got {text[:-1]}")
    if text and not percentage and not document_checks.SIZE.fullmatch(text):
        raise ValueError(f"{path}: unhandled size name: {text.lower().lstrip('-.0123456789 ')}")


_CHECKED: Mapping[str, Callable[[str, str], None]] = {
    "argument": lambda _text, _path: None,
    "base64": _require_base64,
    "size": _require_size,
    "size or share": partial(_require_size, share=True),
}
"""Texts of a form of their own. An argument may be a list of texts too."""


def refusals(documents: Sequence[Mapping[str, Any]], talos: str = OLDEST) -> list[Refusal]:
    """Every reason for which Talos on nocloud refuses a configuration that it can decode.

    Args:
        documents: all documents of the configuration, the one without a kind (v1alpha1) among them or not.
        talos: the version of Talos, such as "1.13" or "v1.14.1".
    """
    documents = [_filled(document) for document in documents]
    main: Mapping[str, Any] = next((document for document in documents if not document.get("kind")), {})
    others = [document for document in documents if document.get("kind")]
    result = [Refusal(_MAIN, message) for message in (_main_problems(main, talos) if main else ())]
    result += [Refusal(identity(each), message) for each in others for message in _document_problems(each, talos)]
    conflicts = (_conflict(main, document) for document in others) if main else ()
    together = [
        *conflicts,
        *_of_one_name(others),
        *(_incomplete(main, others) if has_documents(talos) and main else ()),
    ]
    return result + [Refusal("", message) for message in together if message]


def _incomplete(main: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What Talos 1.14 demands of the documents together."""
    kinds = {each["kind"] for each in others}
    if "DiscoveryServiceConfig" in kinds:
        for name, field, place in (("ID", "clusterID", "cluster.id"), ("secret", "clusterSecret", "cluster.secret")):
            identities = [each.get(field) for each in others if each["kind"] == "DiscoveryIdentityConfig"]
            if not any([*identities, _at(main, place)]):
                needed = "should be set when cluster discovery (DiscoveryServiceConfig) is enabled"
                yield f"cluster {name} (.{place} or DiscoveryIdentityConfig) {needed}"
    is_controlplane = _at(main, "machine.type") in ("controlplane", "init")
    encryption = "KubeEtcdEncryptionConfig" in kinds or any(
        _at(main, f"cluster.{name}EncryptionSecret") for name in ("secretbox", "aescbc")
    )
    if is_controlplane and not encryption and ("KubeAPIServerCAConfig" in kinds or _at(main, "cluster.ca")):
        yield "etcd encryption config is required for control plane machines running kube-apiserver"
    if not is_controlplane and (misplaced := sorted(kinds & set(_RULES["control_plane_only"]))):
        yield f"the following document kinds are only allowed on control plane machines: [{' '.join(misplaced)}]"


def _of_one_name(documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Documents of different kinds that would make one thing: a link, an address, a volume."""
    for kinds in _RULES["exclusive"]:
        first: dict[Any, Mapping[str, Any]] = {}
        for document in (each for each in documents if each["kind"] in kinds):
            other = first.setdefault(document.get("name"), document)
            if other["kind"] != document["kind"]:
                yield f"conflicting documents: {identity(other)} and {identity(document)}"


def _filled(value: Any) -> Any:
    """A value as Talos reads it: lists with empty items where theirs are null, words in lower case."""
    if isinstance(value, list):
        return [{} if item is None else _filled(item) for item in value]
    if isinstance(value, dict):
        words = {key: item.lower() for key, item in value.items() if key in _WORDS and isinstance(item, str)}
        return {key: _filled(item) for key, item in value.items()} | words
    return value


def _at(data: Any, path: str) -> Any:
    for key in path.split(".") if path else ():
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _conflict(main: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """What the v1alpha1 document sets although a document of its own sets it too."""
    for path, message in _RULES["excludes"].get(document["kind"], {}).items():
        if _at(main, path) is not None:
            return str(message)
    for path, message in _RULES["conflicts"].get(document["kind"], {}).items():
        if _at(main, path):
            return str(message)
    return ""


def _document_problems(document: Mapping[str, Any], talos: str) -> Iterator[str]:
    kind, rules = document["kind"], _RULES
    for path, message in rules["required"].get(kind, {}).items():
        if _at(document, path) in (None, "", [], {}):
            yield message
    for path, objects, name, *expected in rules["expressions"].get(kind, ()):
        text = _at(document, path)
        if text and (
            problem := cel.problem("true" if text is True else str(text), rules["objects"][objects], *expected)
        ):
            yield f"{name} is invalid: {problem}"
    for path, form, message in rules["forms"].get(kind, ()):
        value = _at(document, path)
        if value not in (None, "") and not _has_form(str(value), form):
            yield message.format(value=value)
            break
    for path, (least, most, message) in rules["limits"].get(kind, {}).items():
        if (number := _at(document, path)) is not None and not least <= number <= most:
            yield message
    yield from _broken_rules(document, kind, talos)
    yield from (problem for check in document_checks.CHECKS.get(kind, ()) for problem in check(document))
    if kind == "KubeNodeConfig":
        yield from _node_problems("node", *(document.get(name) for name in ("labels", "annotations", "taints")))


def _main_problems(main: Mapping[str, Any], talos: str) -> Iterator[str]:
    machine = main.get("machine") or {}
    if not machine:
        yield "machine instructions are required"
        return
    if interfaces := _at(main, "machine.network.interfaces"):
        network = machine["network"] | {"interfaces": [each for each in interfaces if not each.get("ignore")]}
        machine = machine | {"network": network}
    yield from _broken_rules({**main, "machine": machine}, "", talos)
    yield from document_checks.machine(machine)
    names = [str(entry.get("name") or "").strip() for entry in _at(main, "cluster.inlineManifests") or ()]
    if "" in names:
        yield "inline manifest name can't be empty"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f'inline manifest name "{name}" is duplicate'
    yield from _node_problems(
        "machine node", *(machine.get(f"node{name}") for name in ("Labels", "Annotations", "Taints"))
    )


def _node_problems(owner: str, labels: Any, annotations: Any, taints: Any) -> Iterator[str]:
    """What is wrong with labels, annotations and taints of a node."""
    yield from (f"invalid {owner} labels: {problem}" for problem in label_problems(labels))
    problems = map(qualified_name_problem, sorted(map(str, annotations or ())))
    yield from (f"invalid {owner} annotations: {problem}" for problem in problems if problem)
    yield from (f"invalid {owner} taints: {problem}" for problem in taint_problems(taints))


@cache
def _rules_of(kind: str, talos: tuple[int, ...]) -> Sequence[Mapping[str, Any]]:
    rules = [rule for rule in _RULES["rules"] if kind in ([rule["of"]] if isinstance(rule["of"], str) else rule["of"])]
    rules = [rule for rule in rules if "before" not in rule or talos < ordered(rule["before"])]
    return [rule for rule in rules if "since" not in rule or talos >= ordered(rule["since"])]


def _broken_rules(document: Mapping[str, Any], kind: str, talos: str) -> Iterator[str]:
    """The messages of the rules in refusals.yaml that apply to a document."""
    for rule in _rules_of(kind, ordered(talos)):
        if not _all_hold(document, rule.get("if", {})):
            continue
        for index, item, holder in _items(document, rule["each"]) if "each" in rule else ((0, document, document),):
            any_of = rule.get("any", {})
            if _all_hold(item, rule["when"]) and (not any_of or any(_all_hold(item, {k: any_of[k]}) for k in any_of)):
                value = _text(_at(item, next(iter(rule["when"]))))
                yield rule["says"].format(
                    value=value,
                    network=value.removeprefix("!"),
                    scheme=urlsplit(value).scheme,
                    index=index,
                    name=_text(_at(item, "interface") or holder.get("interface") or holder.get("name")),
                )


def _items(data: Any, path: str) -> Iterator[tuple[int, Any, Mapping[str, Any]]]:
    """Each item of the list or mapping at a path, its index and what holds the list; `*` is every item of a list."""
    above, _, below = path.partition(".*.")
    for index, item in enumerate(_at(data, above) or ()):
        if below:
            yield from _items(item, below)
        else:
            yield index, item, data


def _all_hold(data: Any, conditions: Mapping[str, Any]) -> bool:
    return all(_holds(_at(data, path), condition) for path, condition in conditions.items())


def _holds(value: Any, condition: Any) -> bool:
    """Whether a condition of a rule is true of a value; refusals.yaml explains the conditions."""
    if isinstance(condition, list):
        return value in condition
    if isinstance(condition, str):
        return {"set": bool(value), "unset": not value, "given": value is not None, "absent": value is None}[condition]
    ((word, operand),) = condition.items()
    if word == "not":
        return not _holds(value, operand)
    return _has_form(_text(value), operand) if word == "like" else bool(value) and not _has_form(_text(value), operand)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _has_form(text: str, form: str) -> bool:
    return _FORMS[form](text) if form in _FORMS else bool(re.search(form, text))


def _parses(parse: Callable[[str], Any], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


_FORMS: Mapping[str, Callable[[str], bool]] = {
    "address": lambda text: "/" not in text and _parses(ip_interface, text),
    "interface": lambda text: _parses(ip_interface, text),
    "prefix": lambda text: "/" in text and "%" not in text and _parses(ip_interface, text),
    "filter": lambda text: _parses(ip_interface, text.removeprefix("!")),
    "subnet": lambda text: _parses(partial(ip_network, strict=False), text.removeprefix("!")),
    "url": lambda text: bool(urlsplit(text).hostname),
    "port": lambda text: _parses(lambda url: urlsplit(url).port, text) and urlsplit(text).port != 0,
    "key": document_checks.is_key,
}
"""Forms of texts that a regular expression cannot describe."""
_SCHEMA_FORMS = {
    "^[0-9a-f.:]+$": "address",
    r"^[0-9a-f.:]+/\d{1,3}$": "prefix",
    "^[0-9a-f:]+$": "(?i)^([0-9a-f]{2}:?)+$",
    "^([0-9a-fA-F]{2}(:[0-9a-fA-F]{2})+)$": "(?i)^([0-9a-f]{2}:?)+$",
}
"""What Talos reads where its schema has these patterns."""


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
