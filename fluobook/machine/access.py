"""Credentials generated from the secrets bundle: talosconfig and kubeconfig as talosctl and kubectl read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from fluobook.machine import pki

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook.machine.pki import KeyPair
    from fluobook.machine.secrets import SecretsBundle

ADMIN, READER, ETCD_BACKUP = "os:admin", "os:reader", "os:etcd:backup"
"""Roles of the Talos API."""


def talos_client(secrets: SecretsBundle, *roles: str, days: float = 365) -> KeyPair:
    """A client certificate for the Talos API; Talos reads the roles from its organizations."""
    return pki.issue(secrets.talos, organizations=roles, client=True, days=days)


def talosconfig(
    name: str, secrets: SecretsBundle, identity: KeyPair, *, endpoints: Iterable[str], nodes: Iterable[str] = ()
) -> dict[str, Any]:
    """A talosconfig with one context.

    Args:
        name: name of the cluster, and of the context.
        secrets: the cluster's secrets.
        identity: a client certificate, see `talos_client`.
        endpoints: control planes to connect to. Never the VIP: it responds only while etcd runs (F26).
        nodes: the nodes that talosctl uses when no --nodes is given.
    """
    ca = {"ca": pki.encode_pem(secrets.talos.crt)}
    context = {"endpoints": list(endpoints), "nodes": list(nodes), **ca, **identity.to_base64()}
    return {"context": name, "contexts": {name: {key: value for key, value in context.items() if value}}}


def kubernetes_client(
    secrets: SecretsBundle,
    *,
    common_name: str = "admin",
    organizations: Iterable[str] = ("system:masters",),
    days: float = 365,
) -> KeyPair:
    """A client certificate for the Kubernetes API; without arguments an administrator's, as Talos generates it."""
    return pki.issue(
        secrets.kubernetes,
        common_name=common_name,
        organizations=organizations,
        client=True,
        key_encipherment=True,
        days=days,
    )


def kubeconfig(
    secrets: SecretsBundle, name: str, server: str, *, server_name: str = "", identity: KeyPair | None = None
) -> dict[str, Any]:
    """A kubeconfig with one context, `admin@<name>`, as Talos names it.

    Args:
        secrets: the cluster's secrets.
        name: name of the cluster.
        server: URL of the Kubernetes API for this client.
        server_name: the name or address in the API's certificate, if the URL has another (a bastion, the lab).
        identity: a client certificate; a new administrator's unless given.
    """
    pair = (identity or kubernetes_client(secrets)).to_base64()
    cluster = {"server": server, "certificate-authority-data": pki.encode_pem(secrets.kubernetes.crt)}
    if server_name:
        cluster["tls-server-name"] = server_name
    user, context = f"admin@{name}", {"cluster": name, "namespace": "default", "user": f"admin@{name}"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": user, "user": {"client-certificate-data": pair["crt"], "client-key-data": pair["key"]}}],
        "contexts": [{"name": user, "context": context}],
        "current-context": user,
    }


def dump(config: Mapping[str, Any]) -> str:
    """A talosconfig or kubeconfig as text; write it with mode 0600."""
    return yaml.safe_dump(dict(config), sort_keys=False, width=1_000_000)
