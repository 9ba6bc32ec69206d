"""Version contracts: which documents a machine configuration consists of.

A cluster keeps the contract of the Talos version that it was made with. Up to 1.13 the v1alpha1 document has nearly
everything; from 1.14 on each part of Kubernetes has a document of its own. `contracts.yaml` says what is where.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fluobook.files import packaged
from fluobook.machine.documents import Document
from fluobook.machine.pki import KeyPair, decode_pem, encode_pem
from fluobook.params.versions import ordered

_DATA = packaged(__package__, "contracts.yaml")
DOCUMENTS_FROM: str = _DATA["documents_from"]
"""The first contract by which each part of Kubernetes has a document of its own; the folder of patches for these."""
_ABSENT = object()
# In a list of keys for secretbox, Talos up to 1.13 called the one key so; the API server reads old Secrets by it.
_KEY_NAMES = {"secretbox": "key2", "aescbc": "key1"}
_DISKS = {
    "machine.install.disk": r'disk\.dev_path == "([^"]+)"',
    "machine.install.diskSelector.busPath": r'glob\("([^"]+)", disk\.bus_path\)',
}
"""How an expression names a disk that older contracts name by a field; others have no such field."""
_ENCRYPTION = {"secretbox": "cluster.secretboxEncryptionSecret", "aescbc": "cluster.aescbcEncryptionSecret"}


def has_documents(contract: str) -> bool:
    """Whether each part of Kubernetes has a document of its own by a contract, such as "1.14"."""
    return ordered(contract) >= ordered(DOCUMENTS_FROM)


def folder_of(contract: str) -> str:
    """The folder below talos/patches with a contract's patches, with a slash at its end; "" for that folder itself."""
    return f"{DOCUMENTS_FROM}/" if has_documents(contract) else ""


def generated(role: str) -> list[Document]:
    """What `talosctl gen config` writes for every cluster of contract 1.14: the documents of a role."""
    head, kinds = copy.deepcopy(_DATA["head"]), copy.deepcopy(_DATA["all"])
    if role == "controlplane":
        head["machine"]["type"] = role
        kinds += copy.deepcopy(_DATA["controlplane"])
        next(each for each in kinds if each["kind"] == "KubeNodeConfig").update(
            copy.deepcopy(_DATA["controlplane_node"])
        )
    return [head, *({"apiVersion": "v1alpha1", **each} for each in kinds)]


def split(main: Document) -> list[Document]:
    """A v1alpha1 document, or a part of one, as contract 1.14 writes it: what is left of it, then its other documents.

    Example:
        >>> split({"cluster": {"clusterName": "harbour"}})
        [{}, {'apiVersion': 'v1alpha1', 'kind': 'KubeClusterConfig', 'clusterName': 'harbour'}]
    """
    rest, documents = copy.deepcopy(main), list[Document]()
    endpoint = value_at(main, "cluster.controlPlane.endpoint")
    for kind, fields in _DATA["fields"].items():
        values = {field: value for field, place in fields.items() if (value := _take(rest, place)) is not _ABSENT}
        if values:
            documents.append(_document(kind, **values))
    for kind, entry in _DATA["lists"].items():
        items = _take(rest, entry["place"])
        for item in () if items is _ABSENT else items:
            documents.append(
                _document(kind, **{field: item[key] for field, key in entry["fields"].items() if key in item})
            )
    for kind, place in _DATA["authorities"].items():
        if (encoded := _take(rest, place)) is not _ABSENT:
            further = _take(rest, _DATA["accepted"].get(kind, ""))
            documents.append(_authority(kind, encoded, [] if further is _ABSENT else further))
    if (install := _take(rest, "machine.install")) is not _ABSENT:
        documents.append(_unattended(install))
    if (account := _take(rest, "cluster.serviceAccount")) is not _ABSENT:
        issuer = {"privateKey": decode_pem(account["key"]), "issuerURL": endpoint}
        documents.append(_document("KubeServiceAccountConfig", issuer=issuer))
    providers = [
        {provider: {"keys": [{"name": _KEY_NAMES[provider], "secret": secret}]}}
        for provider, place in _ENCRYPTION.items()
        if (secret := _take(rest, place)) is not _ABSENT
    ]
    if providers:
        config = {"resources": [{"providers": providers, "resources": ["secrets"]}]}
        documents.append(_document("KubeEtcdEncryptionConfig", config=config))
    return [rest, *documents]


def _authority(kind: str, encoded: Mapping[str, str], further: Iterable[Mapping[str, str]]) -> Document:
    """The document of an authority: a control plane has its key, a worker accepts it as the first one."""
    accepted = [decode_pem(each["crt"]) for each in further]
    if not encoded.get("key"):
        return _document(kind, acceptedCAs=[decode_pem(encoded["crt"]), *accepted])
    pair = KeyPair.from_base64(encoded)
    issuing = {"cert": pair.crt, "key": pair.key}
    return _document(kind, issuingCA=issuing, **({"acceptedCAs": accepted} if accepted else {}))


def _unattended(install: Mapping[str, Any]) -> Document:
    """The document that installs Talos on a disk, named by its path or its bus path."""
    path, bus = install.get("disk"), value_at(install, "diskSelector.busPath")
    match = f'disk.dev_path == "{path}"' if path else f'glob("{bus}", disk.bus_path)' if bus else ""
    selector = {"diskSelector": {"match": match}} if match else {}
    installer = {"image": install["image"]} if install.get("image") else {}
    return _document("UnattendedInstallConfig", installer=installer, provisioning={**selector, "wipe": False})


def fold(documents: Iterable[Mapping[str, Any]]) -> Document:
    """The v1alpha1 document to which a configuration amounts, whatever its contract; for reading, not for nodes.

    Example:
        >>> cluster = {"apiVersion": "v1alpha1", "kind": "KubeClusterConfig", "clusterName": "harbour"}
        >>> fold([cluster])["cluster"]["clusterName"]
        'harbour'
    """
    documents = list(documents)
    main = copy.deepcopy(dict(next((each for each in documents if not each.get("kind")), {})))
    kinds = {str(each.get("kind") or "") for each in documents}
    for document in documents:
        for place, value in _amounts_to(document):
            if isinstance(value, list) and isinstance(value_at(main, place), list):
                value_at(main, place).extend(value)
            else:
                _put(main, place, value)
    if kinds & {"KubeClusterConfig", "KubeNetworkConfig"}:
        proxies = [each.get("enabled", True) for each in documents if each.get("kind") == "KubeProxyConfig"]
        _put(main, "cluster.proxy.disabled", not any(proxies))
        _put(main, "cluster.network.cni.name", "flannel" if "KubeFlannelCNIConfig" in kinds else "none")
        _put(main, "machine.features.kubePrism.enabled", "KubePrismConfig" in kinds)
        _put(main, "cluster.discovery.enabled", "DiscoveryServiceConfig" in kinds)
    return main


def _amounts_to(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The places in the v1alpha1 document that a document fills, and their values."""
    kind = str(document.get("kind") or "")
    for field, place in _DATA["fields"].get(kind, {}).items():
        if field in document:
            yield place, copy.deepcopy(document[field])
    if entry := _DATA["lists"].get(kind):
        item = {key: copy.deepcopy(document[field]) for field, key in entry["fields"].items() if field in document}
        yield entry["place"], [item]
    if place := _DATA["authorities"].get(kind):
        accepted = [str(each) for each in _items(document.get("acceptedCAs"))]
        pair = document.get("issuingCA") or {"cert": accepted.pop(0) if accepted else ""}
        yield place, {key: encode_pem(_text(pair, name)) for key, name in (("crt", "cert"), ("key", "key"))}
        if accepted and kind in _DATA["accepted"]:
            yield _DATA["accepted"][kind], [{"crt": encode_pem(each)} for each in accepted]
    if read := _READERS.get(kind):
        yield from read(document)


def _disk(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if image := _text(document, "installer.image"):
        yield "machine.install.image", image
    match = _text(document, "provisioning.diskSelector.match").strip()
    for place, form in _DISKS.items():
        if named := re.fullmatch(form, match):
            yield place, named[1]


def _service_account(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "cluster.serviceAccount.key", encode_pem(_text(document, "issuer.privateKey"))


def _encryption(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for resource in _items(value_at(document, "config.resources")):
        for provider in _items(value_at(resource, "providers")):
            for name, place in _ENCRYPTION.items():
                for key in _items(value_at(provider, f"{name}.keys")):
                    yield place, _text(key, "secret")


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[tuple[str, Any]]]] = {
    "UnattendedInstallConfig": _disk,
    "KubeServiceAccountConfig": _service_account,
    "KubeEtcdEncryptionConfig": _encryption,
}


def value_at(main: Any, path: str) -> Any:
    """The value at a dotted path, None if there is none."""
    value: Any = main
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def with_value(documents: Iterable[Document], path: str, value: str) -> list[Document]:
    """The documents with another value at a place of the v1alpha1 document: in the document that has it, else there.

    Example:
        >>> kubelet = {"apiVersion": "v1alpha1", "kind": "KubeletConfig", "image": "kubelet:v1.35.4"}
        >>> with_value([{}, kubelet], "machine.kubelet.image", "kubelet:v1.36.0")[1]["image"]
        'kubelet:v1.36.0'
    """
    changed = copy.deepcopy(list(documents))
    for document in changed:
        for field, place in _DATA["fields"].get(str(document.get("kind") or ""), {}).items():
            if place == path:
                document[field] = value
                return changed
    _put(next(each for each in changed if not each.get("kind")), path, value)
    return changed


def _text(data: Any, path: str) -> str:
    value = value_at(data, path)
    return "" if value is None else str(value)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _document(kind: str, **fields: Any) -> Document:
    return {"apiVersion": "v1alpha1", "kind": kind, **fields}


def _take(main: Document, path: str) -> Any:
    """Remove the value at a dotted path and return it; mappings that become empty go with it."""
    *parents, key = path.split(".")
    chain = [main]
    for step in parents:
        below = chain[-1].get(step)
        if not isinstance(below, dict):
            return _ABSENT
        chain.append(below)
    value = chain[-1].pop(key, _ABSENT)
    for step, holder, below in reversed(list(zip(parents, chain, chain[1:], strict=False))):
        if not below and value is not _ABSENT:
            del holder[step]
    return value


def _put(main: Document, path: str, value: Any) -> None:
    *parents, key = path.split(".")
    for step in parents:
        if not isinstance(main.get(step), dict):
            main[step] = {}
        main = main[step]
    main[key] = value
