"""Credentials generated from the secrets bundle: talosconfig and kubeconfig as talosctl and kubectl read them.

A file that was written before is compared with what would be written now. Two client certificates are never equal, so
they are compared by what they permit, for how long, and by the authority that signed them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from fluobook.errors import FluobookError
from fluobook.machine import pki
from fluobook.machine.pki import KeyPair
from fluobook.machine.secrets import SecretsBundle

ADMIN, READER, ETCD_BACKUP = "os:admin", "os:reader", "os:etcd:backup"
"""Roles of the Talos API."""

RENEW_BEFORE = dt.timedelta(days=30)
"""How long before its end a client certificate is renewed."""


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
    ca = {"ca": pki.encode_pem(secrets.trusted("talos"))}
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
    cluster = {"server": server, "certificate-authority-data": pki.encode_pem(secrets.trusted("kubernetes"))}
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


@dataclass(frozen=True)
class Credential:
    """The client certificate in a kubeconfig or talosconfig, its key, and the authority of the server."""

    crt: x509.Certificate
    key: str
    ca: x509.Certificate

    @property
    def expires(self) -> dt.datetime:
        """When it stops working: with its own end or with that of the authority."""
        return min(self.crt.not_valid_after_utc, self.ca.not_valid_after_utc)

    def problem(self, now: dt.datetime) -> str:
        """Why the credential cannot be used, or not for long; "" if it can."""
        try:
            self.crt.verify_directly_issued_by(self.ca)
        except (InvalidSignature, TypeError, ValueError):
            return "has a client certificate of another authority"
        if pki.private_key(self.key).public_key() != self.crt.public_key():
            return "has a key that does not belong to its client certificate"
        start, end = self.crt.not_valid_before_utc, self.crt.not_valid_after_utc
        if now < start:
            return f"has a client certificate that is not valid before {start:%Y-%m-%d}: compare this machine's clock"
        if end - now < RENEW_BEFORE:
            return f"has a client certificate that {'expires' if end > now else 'expired'} on {end:%Y-%m-%d}"
        return ""


def credential(config: Any) -> Credential:
    """The credential in the current context of a kubeconfig or talosconfig.

    Raises:
        FluobookError: it has none that can be read.
    """
    try:
        if "clusters" in config:
            names = {
                part: {entry["name"]: entry for entry in config[part]} for part in ("contexts", "clusters", "users")
            }
            context = names["contexts"][config["current-context"]]["context"]
            user, cluster = names["users"][context["user"]]["user"], names["clusters"][context["cluster"]]["cluster"]
            values = [user["client-certificate-data"], user["client-key-data"], cluster["certificate-authority-data"]]
        else:
            context = config["contexts"][config["context"]]
            values = [context["crt"], context["key"], context["ca"]]
        crt, key, ca = (pki.decode_pem(value) for value in values)
    except (KeyError, TypeError):
        raise FluobookError("it has no client certificate, or is no kubeconfig or talosconfig") from None
    return Credential(pki.certificate(crt), key, pki.certificate(ca))


def why_replace(config: Any, wanted: Mapping[str, Any], now: dt.datetime) -> str:
    """Why a kubeconfig or talosconfig is to be replaced; "" if it is up to date.

    Args:
        config: the content of the file.
        wanted: what would be written now.
        now: the time.
    """
    if _without_client(config) != _without_client(wanted):
        return "is of another cluster, or has other endpoints"
    try:
        own, fresh = credential(config), credential(wanted)
        if _permits(own.crt) != _permits(fresh.crt):
            return f"has a client certificate of {own.crt.subject.rfc4514_string() or 'nobody'} with other rights"
        return own.problem(now)
    except FluobookError as error:
        return f"has a client certificate or key that cannot be used: {error.message}"


def remaining(expires: dt.datetime, now: dt.datetime) -> str:
    """How long a certificate still lasts: "11 months", "42 days", "expired". Months are of 30.4 days."""
    days = (expires - now).days
    return "expired" if days < 0 else f"{days} days" if days <= 60 else f"{int(days / 30.4)} months"  # noqa: PLR2004


def _without_client(config: Any) -> Any:
    """A kubeconfig or talosconfig without its client certificate and key."""
    if isinstance(config, dict):
        client = ("crt", "key", "client-certificate-data", "client-key-data")
        return {key: _without_client(value) for key, value in config.items() if key not in client}
    return [_without_client(item) for item in config] if isinstance(config, list) else config


def _permits(crt: x509.Certificate) -> tuple[x509.Name, frozenset[str]]:
    """A certificate's subject and extended key usages."""
    try:
        usages = crt.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return crt.subject, frozenset()
    return crt.subject, frozenset(usage.dotted_string for usage in usages)
