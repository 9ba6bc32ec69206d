"""The secrets of one cluster: the age key and the Talos secrets bundle. The redactor receives whatever is loaded.

The bundle is the only durable file of a cluster. It is written once, atomically, encrypted, and never overwritten but
by the rotation of an authority. While that lasts, a second encrypted file beside it has the old authority and the new
one: it is there before any node knows the new one, and until no node accepts the old one.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from fluobook.clients import age, sops
from fluobook.errors import BadFile, FluobookError, Refused, Rejected
from fluobook.files import read_yaml, write_text
from fluobook.gitops.secrets import SUFFIX, lab_recipients
from fluobook.machine import access
from fluobook.machine.pki import KeyPair
from fluobook.machine.secrets import DROP, Rotation, SecretsBundle, begun, new_secrets
from fluobook.params import KUBERNETES_PORT, TALOS_PORT, Platform
from fluobook.params.secrets import SecretReferences, located
from fluobook.redact import Redactor

OWN_KEY = (
    "age-keygen -o ~/.config/sops/age/keys.txt; put its public key into .sops.yaml, then `sops updatekeys` and "
    "`sops rotate -i` on every *.sops.yaml"
)
"""How a platform gets an age key of its own."""


@dataclass(frozen=True)
class AccessFile:
    """A kubeconfig or talosconfig.

    Args:
        exists: whether there is such a file.
        problem: why it is to be written; "" if it is up to date.
        remaining: how long its client certificate still lasts; "" if it has none.
        expires: when that ends.
    """

    exists: bool
    problem: str = ""
    remaining: str = ""
    expires: dt.datetime | None = None


def _compared(path: Path, wanted: dict[str, Any], now: dt.datetime) -> AccessFile:
    if not path.exists():
        return AccessFile(exists=False, problem="does not exist")
    try:
        config = next(iter(read_yaml(path)), None)
    except BadFile as error:
        return AccessFile(exists=True, problem=error.problem)
    problem = access.why_replace(config, wanted, now)
    problem = problem or ("is readable by others" if path.stat().st_mode & 0o077 else "")
    try:
        expires = access.credential(config).expires
    except FluobookError:
        return AccessFile(exists=True, problem=problem)
    return AccessFile(exists=True, problem=problem, remaining=access.remaining(expires, now), expires=expires)


class ClusterSecrets:
    """Reads and creates the secrets of one cluster; safe for threads.

    Args:
        secrets: their locations, from the params.
        root: the repository; relative paths begin there.
        redactor: receives every value.
        refuses_lab_key: whether the lab's age key, which is public, is refused.
    """

    def __init__(
        self, secrets: SecretReferences, root: Path, redactor: Redactor, *, refuses_lab_key: bool = False
    ) -> None:
        self._refuses_lab_key = refuses_lab_key
        self._secrets = secrets
        self._root = root
        self._redactor = redactor
        self._lock = threading.RLock()
        self._bundle: SecretsBundle | None = None
        self._written: SecretsBundle | None = None
        self._identities: dict[str, KeyPair] = {}

    @property
    def path(self) -> Path:
        """The bundle's file, whether it exists or not."""
        return located(self._secrets.bundle, self._root)

    @property
    def rotation_path(self) -> Path:
        """The file of what is being rotated, beside the bundle; there is one only while a rotation lasts."""
        return self.path.with_name(f"{self.path.name.removesuffix(SUFFIX)}.rotation{SUFFIX}")

    def age_key(self) -> str:
        """The text of the age key file.

        Raises:
            Refused: it is the lab's, which this platform refuses.
        """
        text = self._secrets.age_key.resolve(self._root)
        self._redactor.add(*(line for line in text.splitlines() if not line.startswith("#")))
        if self._refuses_lab_key and age.public_key(text) in lab_recipients(self._root):
            raise Refused(
                f"the age key in {self._secrets.age_key} is the lab's",
                cause="it is public: anybody who has this repository can decrypt what is encrypted for it",
                remedy=OWN_KEY,
            )
        return text

    def recipient(self) -> str:
        """The public half of the age key."""
        return age.public_key(self.age_key())

    def has_bundle(self) -> bool:
        """Whether the bundle exists."""
        return self.path.exists()

    def bundle(self) -> SecretsBundle:
        """The Talos secrets bundle, with the authorities that are being rotated in their present phase.

        Raises:
            NotFound: there is none yet.
            AccessDenied: the age key cannot decrypt it.
        """
        with self._lock:
            if self._bundle is None:
                self._written = SecretsBundle.parse(sops.read(self.path, self.age_key()))
                rotations: dict[str, Rotation] = {}
                if self.rotation_path.exists():
                    data = sops.read(self.rotation_path, self.age_key())
                    rotations = {str(name): Rotation.parse(each) for name, each in data.items()}
                self._bundle = self._redacted(self._written.rotating(rotations))
            return self._bundle

    def begin_rotation(self, name: str) -> None:
        """Make a new authority ("talos", "kubernetes") and write it beside the old one; no node knows it yet."""
        bundle = self.bundle()
        if name not in bundle.rotations:
            rotation = begun(bundle, name)
            self._redactor.add(rotation.new.key)
            self._write_rotations({**bundle.rotations, name: rotation})

    def advance_rotation(self, name: str, phase: str) -> None:
        """Begin the next phase of a rotation: every node has passed the one before.

        Before nodes forget the old authority, the bundle has the new one.
        """
        rotations = dict(self.bundle().rotations)
        rotations[name] = replace(rotations[name], phase=phase)
        if phase == DROP:
            self._write_current(name, rotations[name])
        self._write_rotations(rotations)

    def end_rotation(self, name: str) -> None:
        """Forget the old authority, which no node accepts any more."""
        rotations = dict(self.bundle().rotations)
        self._write_current(name, rotations.pop(name))
        self._write_rotations(rotations)

    def _write_current(self, name: str, rotation: Rotation) -> None:
        """Write the bundle with the new authority, unless it has it."""
        if self._written and getattr(self._written, name) != rotation.new:
            renewed: Any = {name: rotation.new}
            self._replace(self.path, replace(self._written, **renewed).as_mapping())

    def _write_rotations(self, rotations: Mapping[str, Rotation]) -> None:
        if rotations:
            self._replace(self.rotation_path, {name: each.as_mapping() for name, each in rotations.items()})
        else:
            self.rotation_path.unlink(missing_ok=True)
        with self._lock:
            self._bundle = self._written = None
            self._identities.clear()

    def files(self) -> tuple[Path, ...]:
        """The bundle's file, and that of a rotation, if they exist."""
        return tuple(path for path in (self.path, self.rotation_path) if path.exists())

    def encrypt_for(self, name: str, recipients: Sequence[str]) -> None:
        """Encrypt one of `files` for other recipients, with another data key; its content stays."""
        path = next(each for each in self.files() if each.name == name)
        self._replace(path, sops.read(path, self.age_key()), recipients)

    def _replace(self, path: Path, data: dict[str, Any], recipients: Sequence[str] = ()) -> None:
        """Encrypt, by default for the bundle's recipients, read back what was encrypted, and replace the file.

        Raises:
            Rejected: what was encrypted is something else; the file is unchanged.
        """
        text = yaml.safe_dump(data, sort_keys=False)
        encrypted = sops.encrypt(text, path=path, recipients=recipients or sops.recipients(self.path))
        if sops.read(encrypted, self.age_key(), name=path.name) != data:
            raise Rejected(f"{path.name} was encrypted with other content; the file is unchanged", system="sops")
        write_text(path, encrypted)

    def create_bundle(self) -> str:
        """Create a bundle and write it, encrypted, in one step.

        Returns:
            Its cluster id, which is not secret.

        Raises:
            Refused: a bundle exists already; it is never overwritten.
        """
        bundle = self._redacted(new_secrets())
        text = sops.encrypt(
            yaml.safe_dump(bundle.as_mapping(), sort_keys=False), path=self.path, recipients=[self.recipient()]
        )
        try:
            write_text(self.path, text, exclusive=True)  # synced, so that a power cut leaves no empty bundle
        except FileExistsError:
            raise Refused(
                f"{self.path} exists already",
                cause="a secrets bundle is never overwritten",
                remedy="run the stage again: it uses the existing bundle",
            ) from None
        self._bundle = self._written = bundle
        return bundle.cluster_id

    def talos_identity(self, role: str) -> KeyPair:
        """A client certificate for Talos with one role."""
        with self._lock:
            if role not in self._identities:
                pair = access.talos_client(self.bundle(), role)
                self._redactor.add(pair.key)
                self._identities[role] = pair
            return self._identities[role]

    def kubeconfig(self, platform: Platform) -> dict[str, Any]:
        """An administrator's kubeconfig, made from the bundle; mapped endpoints get a `tls-server-name`."""
        host, port = platform.route(platform.api_address, KUBERNETES_PORT)
        config = access.kubeconfig(
            self.bundle(),
            platform.cluster.name,
            f"https://{host}:{port}",
            server_name="" if host == platform.api_address else platform.api_address,
        )
        self._redactor.add(config["users"][0]["user"]["client-key-data"])
        return config

    def talosconfig(self, platform: Platform, role: str = "os:admin") -> dict[str, Any]:
        """A talosconfig for the control planes."""
        endpoints = []
        for node in platform.control_planes:
            host, port = platform.route(node.address, TALOS_PORT)
            endpoints.append(host if port == TALOS_PORT else f"{host}:{port}")
        nodes = [node.address for node in platform.nodes]
        return access.talosconfig(
            platform.cluster.name, self.bundle(), self.talos_identity(role), endpoints=endpoints, nodes=nodes
        )

    def access_files(self, platform: Platform, home: Path) -> dict[str, AccessFile]:
        """The kubeconfig and the talosconfig in the cluster's own folder, compared with this cluster's."""
        now = dt.datetime.now(dt.UTC)
        wanted = {"kubeconfig": self.kubeconfig(platform), "talosconfig": self.talosconfig(platform)}
        return {name: _compared(home / name, config, now) for name, config in wanted.items()}

    def _redacted(self, bundle: SecretsBundle) -> SecretsBundle:
        self._redactor.add(*bundle.values())
        return bundle
