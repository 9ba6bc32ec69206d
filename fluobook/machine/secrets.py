"""The secrets bundle of a Talos cluster, in the format of `talosctl gen secrets`.

It is the only durable file of a cluster: machine configurations, talosconfig and kubeconfig follow from it. While an
authority is replaced, a second file beside it has the old one and the new one; see `Rotation`.
"""

from __future__ import annotations

import base64
import secrets as random
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fluobook.errors import FluobookError, ParamsError
from fluobook.machine import pki
from fluobook.machine.pki import KeyPair

_ALPHABET = string.digits + string.ascii_lowercase

ACCEPT, ISSUE, DROP = "accept", "issue", "drop"
PHASES = (ACCEPT, ISSUE, DROP)
"""The phases of a rotation. Every node passes one before the next begins, so any two nodes trust each other."""
ALGORITHMS: Mapping[str, pki.Algorithm] = {"talos": "ed25519", "kubernetes": "ecdsa"}
"""The authorities that can be rotated, by their fields in the bundle, and the keys that Talos gives them."""


@dataclass(frozen=True)
class Rotation:
    """An authority that is being replaced.

    Args:
        phase: "accept": nodes accept the new one too; "issue": they issue with the new one and accept the old one too;
            "drop": they forget the old one.
        old: the authority that goes.
        new: the authority that comes.
    """

    phase: str
    old: KeyPair = field(repr=False)
    new: KeyPair = field(repr=False)

    @property
    def current(self) -> KeyPair:
        """The one that issues."""
        return self.old if self.phase == ACCEPT else self.new

    @property
    def accepted(self) -> tuple[str, ...]:
        """The certificates that a node accepts beside that of the one that issues."""
        return {ACCEPT: (self.new.crt,), ISSUE: (self.old.crt,), DROP: ()}[self.phase]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Rotation:
        """Read what `as_mapping` wrote.

        Raises:
            ParamsError: it was changed by hand.
        """
        problems: list[str] = []
        pairs = [_pair(data, half, problems) for half in ("old", "new")]
        if data.get("phase") not in PHASES:
            problems.append(f"phase: is none of {', '.join(PHASES)}")
        if problems or pairs[0] is None or pairs[1] is None:
            raise ParamsError(
                "the file of the rotation beside the secrets bundle is damaged",
                problems=tuple(problems),
                remedy="restore it from Git or from your backup: it has the authority that some nodes use",
            )
        return cls(str(data["phase"]), pairs[0], pairs[1])

    def as_mapping(self) -> dict[str, Any]:
        """The rotation as YAML has it."""
        return {"phase": self.phase, "old": self.old.to_base64(), "new": self.new.to_base64()}


def begun(bundle: SecretsBundle, name: str) -> Rotation:
    """The first phase of the rotation of an authority ("talos", "kubernetes"), with a new one like Talos makes it."""
    return Rotation(ACCEPT, getattr(bundle, name), pki.new_authority(organization=name, algorithm=ALGORITHMS[name]))


@dataclass(frozen=True)
class SecretsBundle:
    """All secrets of a cluster. Certificates and keys are PEM; nothing secret is in the repr."""

    cluster_id: str = field(metadata={"path": "cluster.id"})
    """Name of the cluster at the discovery service."""
    cluster_secret: str = field(metadata={"path": "cluster.secret"}, repr=False)
    """Members encrypt what they send to the discovery service with it."""
    bootstrap_token: str = field(metadata={"path": "secrets.bootstraptoken"}, repr=False)
    """Kubelets request their first certificate with this token."""
    trustd_token: str = field(metadata={"path": "trustdinfo.token"}, repr=False)
    """Workers request their Talos certificate from control planes with this token."""
    etcd: KeyPair = field(metadata={"path": "certs.etcd"}, repr=False)
    """Authority of etcd."""
    kubernetes: KeyPair = field(metadata={"path": "certs.k8s"}, repr=False)
    """Authority of Kubernetes."""
    aggregator: KeyPair = field(metadata={"path": "certs.k8saggregator"}, repr=False)
    """Authority of the API server's aggregation layer."""
    service_account_key: str = field(metadata={"path": "certs.k8sserviceaccount.key"}, repr=False)
    """Signs service account tokens."""
    talos: KeyPair = field(metadata={"path": "certs.os"}, repr=False)
    """Authority of the Talos API."""
    secretbox_encryption_secret: str = field(
        metadata={"path": "secrets.secretboxencryptionsecret"}, repr=False, default=""
    )
    """Encrypts Kubernetes Secrets in etcd."""
    aescbc_encryption_secret: str = field(metadata={"path": "secrets.aescbcencryptionsecret"}, repr=False, default="")
    """The same for clusters created before Talos 1.3."""
    rotations: Mapping[str, Rotation] = field(default_factory=dict, repr=False)
    """The authorities that are being replaced; not in the bundle's file."""

    @classmethod
    def parse(cls, bundle: Mapping[str, Any]) -> SecretsBundle:
        """The bundle in parsed YAML.

        Raises:
            ParamsError: talosctl would not accept it; `problems` names every place, never a value.
        """
        if not isinstance(bundle, Mapping):
            raise ParamsError("the secrets bundle is not a mapping", remedy="restore it from Git or from your backup")
        if "sops" in bundle:
            raise ParamsError("the secrets bundle is still encrypted", remedy="decrypt it with sops first")
        problems: list[str] = []
        values: dict[str, Any] = {}
        for each in _stored(cls):
            read = _pair if each.type == "KeyPair" else _account if each.name == "service_account_key" else _text
            values[each.name] = read(bundle, each.metadata["path"], problems, required=each.default != "")
        if bool(values["secretbox_encryption_secret"]) == bool(values["aescbc_encryption_secret"]):
            names = "secretboxencryptionsecret, aescbcencryptionsecret"
            problems.append(f"secrets: exactly one of {names} is required")
        if problems:
            raise ParamsError(
                "talosctl would not accept the secrets bundle",
                problems=tuple(problems),
                remedy="restore the bundle from Git or from your backup; a new one would be another cluster",
            )
        return cls(**values)

    def as_mapping(self) -> dict[str, Any]:
        """The bundle as `talosctl gen secrets` writes it."""
        bundle: dict[str, Any] = {}
        for each in _stored(type(self)):
            *parents, key = each.metadata["path"].split(".")
            section = bundle
            for parent in parents:
                section = section.setdefault(parent, {})
            value = getattr(self, each.name)
            if isinstance(value, KeyPair):
                section[key] = value.to_base64()
            elif value:
                section[key] = pki.encode_pem(value) if parents[0] == "certs" else value
        return bundle

    def rotating(self, rotations: Mapping[str, Rotation]) -> SecretsBundle:
        """The bundle in which those authorities are being replaced."""
        current: dict[str, Any] = {name: rotation.current for name, rotation in rotations.items()}
        return replace(self, rotations=dict(rotations), **current)

    def accepted(self, name: str) -> tuple[str, ...]:
        """The certificates of an authority ("talos", "kubernetes") that nodes accept beside the one that issues."""
        return self.rotations[name].accepted if name in self.rotations else ()

    def trusted(self, name: str) -> str:
        """Every certificate, PEM, by which a server of an authority may be verified; the one that issues is first."""
        rotation, current = self.rotations.get(name), str(getattr(self, name).crt)
        other = rotation.new.crt if rotation and rotation.phase == ACCEPT else rotation.old.crt if rotation else ""
        return f"{current.rstrip()}\n{other}" if other else current

    def values(self) -> tuple[str, ...]:
        """Every value that must never be shown; for `fluobook.redact`.

        The cluster id is one of them: it is harmless alone, but it is random, and belongs to the bundle.
        """
        values = [self.cluster_id, self.cluster_secret, self.secretbox_encryption_secret, self.aescbc_encryption_secret]
        for token in (self.bootstrap_token, self.trustd_token):
            values += [token, token.partition(".")[2]]
        values += [pair.key for pair in (self.etcd, self.kubernetes, self.aggregator, self.talos)]
        values += [pair.key for rotation in self.rotations.values() for pair in (rotation.old, rotation.new)]
        return tuple(value for value in (*values, self.service_account_key) if value)


def _stored(cls: type[SecretsBundle]) -> list[Any]:
    """The fields that the bundle's file has."""
    return [each for each in fields(cls) if "path" in each.metadata]


def new_secrets() -> SecretsBundle:
    """The secrets of a new cluster, as Talos 1.13 generates them; takes about a second, for the RSA key."""
    return SecretsBundle(
        cluster_id=base64.urlsafe_b64encode(random.token_bytes(32)).decode(),
        cluster_secret=base64.b64encode(random.token_bytes(32)).decode(),
        bootstrap_token=_token(),
        trustd_token=_token(),
        etcd=pki.new_authority(organization="etcd"),
        kubernetes=pki.new_authority(organization="kubernetes"),
        aggregator=pki.new_authority(common_name="front-proxy"),
        talos=pki.new_authority(organization="talos", algorithm="ed25519"),
        service_account_key=pki.key_pem(pki.new_key("rsa")),
        secretbox_encryption_secret=base64.b64encode(random.token_bytes(32)).decode(),
    )


def _token() -> str:
    first, second = ("".join(random.choice(_ALPHABET) for _ in range(length)) for length in (6, 16))
    return f"{first}.{second}"


def _text(bundle: Any, path: str, problems: list[str], *, required: bool = True) -> str:
    for key in path.split("."):
        bundle = bundle.get(key) if isinstance(bundle, Mapping) else None
    if bundle is None and not required:
        return ""
    if not isinstance(bundle, str) or not bundle:
        problems.append(f"{path}: is required, as text")
        return ""
    return bundle


def _pair(bundle: Any, path: str, problems: list[str], *, required: bool = True) -> KeyPair | None:
    encoded = {half: _text(bundle, f"{path}.{half}", problems, required=required) for half in ("crt", "key")}
    try:
        pair = KeyPair.from_base64(encoded) if all(encoded.values()) else None
        if pair and pki.certificate(pair.crt).public_key() != pki.private_key(pair.key).public_key():
            problems.append(f"{path}: the key does not belong to the certificate")
    except FluobookError as error:
        problems.append(f"{path}: {error.message}")
        return None
    return pair


def _account(bundle: Any, path: str, problems: list[str], *, required: bool = True) -> str:
    value = _text(bundle, path, problems, required=required)
    try:
        key = pki.decode_pem(value)
        pki.private_key(key) if value else None
    except FluobookError as error:
        problems.append(f"{path}: {error.message}")
        return ""
    return key
