"""What Talos and Kubernetes themselves put into a new cluster: RBAC for bootstrap, DNS, the API's Service."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from fluobook.params import KUBERNETES_PORT
from fluobook_lab.kube.objects import data_file

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store

MANAGER = "talos"


def install(store: Store, *, bootstrap_token: str, service_cidr: str) -> None:
    """Apply them all.

    Args:
        store: the cluster.
        bootstrap_token: "id.secret", "" for none.
        service_cidr: the first address is the API's, the tenth the DNS server's.
    """
    values = {"api": str(ipaddress.ip_network(service_cidr)[1]), "api_port": KUBERNETES_PORT}
    kubernetes_own = _filled(data_file("system.yaml")["kubernetes"], values)
    for obj in [*kubernetes_own, *of_talos(bootstrap_token=bootstrap_token, service_cidr=service_cidr)]:
        store.apply(obj, manager=MANAGER, force=True)


def of_talos(*, bootstrap_token: str, service_cidr: str) -> list[Obj]:
    """What Talos alone brings: the rest is made by the API server and its controllers."""
    documents = data_file("system.yaml")
    identifier, _, secret = bootstrap_token.partition(".")
    objects = documents["talos"] + (documents["bootstrap_token"] if bootstrap_token else [])
    values = {"dns": str(ipaddress.ip_network(service_cidr)[10])}
    values |= {"token_id": identifier, "token_name": f"bootstrap-token-{identifier}", "token_secret": secret}
    return list(_filled(objects, values))


def _filled(value: Any, values: dict[str, Any]) -> Any:
    """The documents with the values of a cluster."""
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    return values[value[1:]] if isinstance(value, str) and value.startswith("$") else value
