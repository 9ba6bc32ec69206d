"""Machine configurations as a node reads, checks and compares them; `fluobook.machine.validation` has Talos' rules."""

from __future__ import annotations

import base64
import difflib
import json
import subprocess
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fluobook.errors import BadFile
from fluobook.files import parse_yaml
from fluobook.machine.contracts import fold
from fluobook.machine.documents import TalosLoader
from fluobook.machine.pki import KeyPair
from fluobook.machine.validation import OLDEST, decoding_problem, refusals
from fluobook_lab.data import dump

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHANGEABLE = """
    ca acceptedCAs time certSANs install network sysfs sysctls logging controlPlane kubelet kernel registries pods
    seccompProfiles nodeAnnotations nodeLabels nodeTaints
"""
_CHANGEABLE_KEYS = frozenset(_CHANGEABLE.split())
"""Keys of `machine` that change without a reboot; so do `cluster`, `debug` and all other documents."""
_CHANGEABLE_FEATURES = frozenset(
    {"kubernetesTalosAPIAccess", "kubePrism", "hostDNS", "imageCache", "nodeAddressSortAlgorithm"}
)


class InvalidConfigurationError(Exception):
    """The node refuses a configuration; the text is Talos' own."""


@dataclass(frozen=True)
class MachineConfiguration:
    """A parsed configuration; `main` is its v1alpha1 document, empty if it has none."""

    main: Mapping[str, Any]
    documents: tuple[Mapping[str, Any], ...]

    @cached_property
    def folded(self) -> Mapping[str, Any]:
        """The v1alpha1 document to which the configuration amounts, whatever its contract."""
        return fold([self.main, *self.documents])

    @property
    def machine(self) -> Mapping[str, Any]:
        """The section `machine` of `folded`."""
        return self.folded.get("machine") or {}

    @property
    def cluster(self) -> Mapping[str, Any]:
        """The section `cluster` of `folded`."""
        return self.folded.get("cluster") or {}

    @property
    def type(self) -> str:
        """The node's role: "controlplane" or "worker"."""
        kind = str(self.machine.get("type") or "")
        return {"init": "controlplane", "join": "worker"}.get(kind, kind)

    @property
    def is_control_plane(self) -> bool:
        """Whether the node is a control plane."""
        return self.type == "controlplane"

    @property
    def cluster_name(self) -> str:
        """The cluster's name."""
        return str(self.cluster.get("clusterName") or "")

    @cached_property
    def cluster_id(self) -> str:
        """The cluster's identity; nodes with the same one discover each other."""
        return str(self.cluster.get("id") or self.cluster_name)

    @property
    def endpoint(self) -> str:
        """The URL of the Kubernetes API."""
        return str((self.cluster.get("controlPlane") or {}).get("endpoint") or "")

    @property
    def install(self) -> Mapping[str, Any]:
        """The section `machine.install`."""
        return self.machine.get("install") or {}

    @cached_property
    def hostname(self) -> str:
        """The configured host name, "" for none."""
        for document in self.of_kind("HostnameConfig"):
            if document.get("hostname"):
                return str(document["hostname"])
        return str((self.machine.get("network") or {}).get("hostname") or "")

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """Additional names and addresses in the node's API certificate."""
        return tuple(str(name) for name in self.machine.get("certSANs") or ())

    @property
    def accepted_authorities(self) -> tuple[str, ...]:
        """Additional certificate authorities whose clients are accepted, PEM."""
        return tuple(pair(entry).crt for entry in self.machine.get("acceptedCAs") or ())

    def authority(self) -> KeyPair:
        """Talos' certificate authority; without a key on a worker."""
        return pair(self.machine.get("ca"))

    @property
    def api_authorities(self) -> tuple[object, ...]:
        """What the certificates of the Talos API depend on."""
        return self.machine.get("ca"), self.machine.get("acceptedCAs") or []

    @property
    def cluster_authorities(self) -> tuple[str, ...]:
        """The certificates of Kubernetes' authorities, PEM: that of the one that issues first."""
        accepted = self.cluster.get("acceptedCAs") or ()
        return tuple(pair(entry).crt for entry in (self.cluster.get("ca"), *accepted))

    def of_kind(self, kind: str) -> tuple[Mapping[str, Any], ...]:
        """The documents of a kind, in their order."""
        return tuple(document for document in self.documents if document.get("kind") == kind)

    @cached_property
    def canonical(self) -> str:
        """The configuration without comments and with sorted keys, for comparison."""
        documents = ([self.main] if self.main else []) + list(self.documents)
        return "---\n".join(dump(document, width=4096) for document in documents)


def pair(value: Mapping[str, Any] | None) -> KeyPair:
    """A `{crt, key}` of the configuration, decoded; empty if it is absent."""
    value = value or {}
    crt, key = (base64.b64decode(str(value.get(name) or "")).decode(errors="replace") for name in ("crt", "key"))
    return KeyPair(crt, key)


def load(text: bytes | str, talos: str = OLDEST) -> MachineConfiguration:
    """Read a configuration as a version of Talos does.

    Raises:
        InvalidConfigurationError: it is not YAML, is empty, or has an unknown or repeated document or field.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    try:
        documents = [each for each in parse_yaml(text, "configuration", loader=TalosLoader) if each is not None]
    except BadFile as error:
        raise InvalidConfigurationError(f"decode error: {error.message}") from None
    if not documents:
        raise InvalidConfigurationError("no configuration documents provided")
    identities = set()
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict):
            raise InvalidConfigurationError(f"expected a YAML document at line {number}")
        identity = (
            f"{document.get('apiVersion') or ''}/{document.get('kind') or 'v1alpha1'}/{document.get('name') or ''}"
        )
        if identity in identities:
            raise InvalidConfigurationError(f"duplicate document {identity} is not allowed (line {number})")
        identities.add(identity)
        if problem := decoding_problem(document, talos):
            raise InvalidConfigurationError(f"error decoding document {identity} (line {number}): {problem}")
    main: dict[str, Any] = next((document for document in documents if not document.get("kind")), {})
    return MachineConfiguration(main, tuple(document for document in documents if document.get("kind")))


def validate(config: MachineConfiguration, talos: str = OLDEST) -> list[str]:
    """Refuse a configuration that Talos on nocloud would refuse; returns its warnings.

    Raises:
        InvalidConfigurationError: with all problems, in the form in which Talos lists them.
    """
    documents = [*([config.main] if config.main else []), *config.documents]
    by_document: dict[str, list[str]] = {}
    for refusal in refusals(documents, talos):
        by_document.setdefault(refusal.document, []).append(refusal.message)
    contradictions = by_document.pop("", [])
    problems = [
        f"{name}: " + (_multierror(messages) if name == "v1alpha1.Config" else "\n".join(messages))
        for name, messages in by_document.items()
    ]
    if problems or contradictions:
        raise InvalidConfigurationError(_multierror([*problems, *contradictions]))
    if not config.install.get("extensions"):
        return []
    page = "https://docs.siderolabs.com/talos/latest/platform-specific-installations/boot-assets"
    return [f".machine.install.extensions is deprecated, please see {page}"]


def ask(referee: str, text: bytes) -> None:
    """Refuse a configuration that Talos' own code refuses.

    Args:
        referee: the program `talos-referee`, which judges contracts up to 1.13.
        text: the configuration.

    Raises:
        InvalidConfigurationError: with Talos' message.
    """
    questions = json.dumps([text.decode(errors="replace")])
    command = subprocess.run([referee], input=questions, capture_output=True, text=True, check=True, timeout=60)
    (message,) = json.loads(command.stdout)
    if message:
        raise InvalidConfigurationError(message)


def _multierror(problems: list[str]) -> str:
    """Several errors in the form of HashiCorp's multierror."""
    head = "1 error occurred" if len(problems) == 1 else f"{len(problems)} errors occurred"
    return f"{head}:\n" + "".join(f"\t* {problem}\n" for problem in problems) + "\n"


def difference(old: MachineConfiguration | None, new: MachineConfiguration) -> str:
    """The result of a dry run: a unified diff of both configurations, or "No changes."."""
    before = old.canonical if old else ""
    lines = difflib.unified_diff(before.splitlines(), new.canonical.splitlines(), "a", "b", lineterm="")
    return "Config diff:\n\n" + ("\n".join(lines) or "No changes.")


def needs_reboot(old: MachineConfiguration, new: MachineConfiguration) -> bool:
    """Whether the change touches a field that a running node cannot change."""
    return _fixed(old) != _fixed(new)


def _fixed(config: MachineConfiguration) -> dict[str, Any]:
    machine = {key: value for key, value in config.machine.items() if key not in _CHANGEABLE_KEYS}
    features = machine.get("features") or {}
    machine["features"] = {key: value for key, value in features.items() if key not in _CHANGEABLE_FEATURES}
    rest = {key: value for key, value in config.main.items() if key not in {"machine", "cluster", "debug"}}
    return {**rest, "machine": machine}
