"""The secrets bundle of a Talos cluster, in the format of `talosctl gen secrets`.

It is the only durable file of a cluster: machine configurations, talosconfig and kubeconfig follow from it.
"""

from __future__ import annotations

import base64
import secrets as random
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fluobook.errors import FluobookError, ParamsError
from fluobook.machine.pki import (
    KeyPair,
    certificate,
    decode_pem,
    encode_pem,
    key_pem,
    new_authority,
    new_key,
    private_key,
)

_ALPHABET = string.digits + string.ascii_lowercase
_NO_PAIR = KeyPair("", "")


@dataclass(frozen=True)
class SecretsBundle:
    """All secrets of a cluster. Certificates and keys are PEM; nothing secret is in the repr."""

    cluster_id: str
    """Name of the cluster at the discovery service."""
    cluster_secret: str = field(repr=False)
    """Members encrypt what they send to the discovery service with it."""
    bootstrap_token: str = field(repr=False)
    """Kubelets request their first certificate with this token."""
    trustd_token: str = field(repr=False)
    """Workers request their Talos certificate from control planes with this token."""
    etcd: KeyPair
    """Authority of etcd."""
    kubernetes: KeyPair
    """Authority of Kubernetes."""
    aggregator: KeyPair
    """Authority of the API server's aggregation layer."""
    talos: KeyPair
    """Authority of the Talos API."""
    service_account_key: str = field(repr=False)
    """Signs service account tokens."""
    secretbox_encryption_secret: str = field(default="", repr=False)
    """Encrypts Kubernetes Secrets in etcd."""
    aescbc_encryption_secret: str = field(default="", repr=False)
    """The same for clusters created before Talos 1.3."""

    @classmethod
    def parse(cls, bundle: Mapping[str, Any]) -> SecretsBundle:
        """The bundle in parsed YAML.

        Raises:
            ParamsError: talosctl would not accept it; `problems` names every place, never a value.
        """
        return _Reader(bundle).secrets()

    def as_mapping(self) -> dict[str, Any]:
        """The bundle as `talosctl gen secrets` writes it."""
        encryption = {
            "secretboxencryptionsecret": self.secretbox_encryption_secret,
            "aescbcencryptionsecret": self.aescbc_encryption_secret,
        }
        return {
            "cluster": {"id": self.cluster_id, "secret": self.cluster_secret},
            "secrets": {
                "bootstraptoken": self.bootstrap_token,
                **{key: value for key, value in encryption.items() if value},
            },
            "trustdinfo": {"token": self.trustd_token},
            "certs": {
                "etcd": self.etcd.to_base64(),
                "k8s": self.kubernetes.to_base64(),
                "k8saggregator": self.aggregator.to_base64(),
                "k8sserviceaccount": {"key": encode_pem(self.service_account_key)},
                "os": self.talos.to_base64(),
            },
        }

    def values(self) -> tuple[str, ...]:
        """Every value that must never be shown; for `fluobook.redact`.

        The cluster id is one of them: it is harmless alone, but it is random, and belongs to the bundle.
        """
        values = [self.cluster_id, self.cluster_secret, self.secretbox_encryption_secret, self.aescbc_encryption_secret]
        for token in (self.bootstrap_token, self.trustd_token):
            values += [token, token.partition(".")[2]]
        values += [pair.key for pair in (self.etcd, self.kubernetes, self.aggregator, self.talos)]
        return tuple(value for value in (*values, self.service_account_key) if value)


def new_secrets() -> SecretsBundle:
    """The secrets of a new cluster, as Talos 1.13 generates them; takes about a second, for the RSA key."""
    return SecretsBundle(
        cluster_id=base64.urlsafe_b64encode(random.token_bytes(32)).decode(),
        cluster_secret=base64.b64encode(random.token_bytes(32)).decode(),
        bootstrap_token=_token(),
        trustd_token=_token(),
        etcd=new_authority(organization="etcd"),
        kubernetes=new_authority(organization="kubernetes"),
        aggregator=new_authority(common_name="front-proxy"),
        talos=new_authority(organization="talos", algorithm="ed25519"),
        service_account_key=key_pem(new_key("rsa")),
        secretbox_encryption_secret=base64.b64encode(random.token_bytes(32)).decode(),
    )


def _token() -> str:
    first, second = ("".join(random.choice(_ALPHABET) for _ in range(length)) for length in (6, 16))
    return f"{first}.{second}"


class _Reader:
    """Reads a bundle and collects every problem, so that one error names them all."""

    def __init__(self, bundle: Mapping[str, Any]) -> None:
        self._bundle = bundle
        self._problems: list[str] = []

    def secrets(self) -> SecretsBundle:
        """The bundle's content, or one error for all problems."""
        if "sops" in self._bundle:
            raise ParamsError("the secrets bundle is still encrypted", remedy="decrypt it with sops first")
        bundle = SecretsBundle(
            cluster_id=self._text("cluster", "id"),
            cluster_secret=self._text("cluster", "secret"),
            bootstrap_token=self._text("secrets", "bootstraptoken"),
            trustd_token=self._text("trustdinfo", "token"),
            etcd=self._pair("certs.etcd"),
            kubernetes=self._pair("certs.k8s"),
            aggregator=self._pair("certs.k8saggregator"),
            talos=self._pair("certs.os"),
            service_account_key=self._account("certs.k8sserviceaccount"),
            secretbox_encryption_secret=self._text("secrets", "secretboxencryptionsecret", required=False),
            aescbc_encryption_secret=self._text("secrets", "aescbcencryptionsecret", required=False),
        )
        if bool(bundle.secretbox_encryption_secret) == bool(bundle.aescbc_encryption_secret):
            names = "secretboxencryptionsecret, aescbcencryptionsecret"
            self._problems.append(f"secrets: exactly one of {names} is required")
        if self._problems:
            raise ParamsError(
                "talosctl would not accept the secrets bundle",
                problems=tuple(self._problems),
                remedy="restore the bundle from Git or from your backup; a new one would be another cluster",
            )
        return bundle

    def _section(self, path: str) -> Mapping[str, Any]:
        section: Any = self._bundle
        for key in path.split("."):
            section = section.get(key) if isinstance(section, Mapping) else None
        return section if isinstance(section, Mapping) else {}

    def _text(self, path: str, key: str, *, required: bool = True) -> str:
        value = self._section(path).get(key)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or not value:
            self._problems.append(f"{path}.{key}: is required, as text")
            return ""
        return value

    def _pair(self, path: str) -> KeyPair:
        pair = {"crt": self._text(path, "crt"), "key": self._text(path, "key")}
        try:
            return _matching(pair) if all(pair.values()) else _NO_PAIR
        except FluobookError as error:
            self._problems.append(f"{path}: {error.message}")
            return _NO_PAIR

    def _account(self, path: str) -> str:
        value = self._text(path, "key")
        try:
            key = decode_pem(value)
            private_key(key) if value else None
        except FluobookError as error:
            self._problems.append(f"{path}: {error.message}")
            return ""
        return key


def _matching(encoded: Mapping[str, str]) -> KeyPair:
    pair = KeyPair.from_base64(encoded)
    if certificate(pair.crt).public_key() != private_key(pair.key).public_key():
        raise FluobookError("the key does not belong to the certificate")
    return pair
