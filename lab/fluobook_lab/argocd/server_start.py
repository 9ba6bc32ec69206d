"""What argocd-server makes at its first start: the project `default`, its own keys, and the first admin password."""

from __future__ import annotations

import base64
import string
from typing import TYPE_CHECKING

from fluobook_lab.argocd.names import API, NAMESPACE
from fluobook_lab.kube.identity import Write
from fluobook_lab.kube.objects import timestamp

if TYPE_CHECKING:
    import random

    from fluobook_lab.kube.store import Store

SERVER = Write(manager="argocd-server")
EVERYTHING = {"group": "*", "kind": "*"}


def first_start(store: Store, dice: random.Random) -> None:
    """Make what is not there yet."""
    if store.registry.find(API, "AppProject") and not store.find(API, "AppProject", "default", NAMESPACE):
        spec = {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}]}
        spec["clusterResourceWhitelist"] = [EVERYTHING]
        project = {"apiVersion": API, "kind": "AppProject", "metadata": {"name": "default", "namespace": NAMESPACE}}
        store.create(project | {"spec": spec}, SERVER)
    own = store.find("v1", "Secret", "argocd-secret", NAMESPACE)
    if (own or {}).get("data", {}).get("server.secretkey"):
        return
    password = _word(dice, 16)
    values = {"server.secretkey": _word(dice, 44), "admin.password": f"$2a$10${_word(dice, 53)}"}
    _keep(store, "argocd-secret", {**values, "admin.passwordMtime": timestamp()})
    _keep(store, "argocd-initial-admin-secret", {"password": password})


def _keep(store: Store, name: str, values: dict[str, str]) -> None:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    if store.find("v1", "Secret", name, NAMESPACE):
        store.patch("v1", "Secret", name, NAMESPACE, body={"data": data}, write=SERVER)
    else:
        metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/part-of": "argocd"}}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
        store.create(secret, SERVER)


def _word(dice: random.Random, length: int) -> str:
    return "".join(dice.choices(string.ascii_letters + string.digits, k=length))
