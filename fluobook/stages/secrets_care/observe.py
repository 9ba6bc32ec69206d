"""What there is: the encrypted files, whom they are for, which keys are in them, and what the generators list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from fluobook import gitops
from fluobook.clients import age, sops
from fluobook.gitops import documents
from fluobook.gitops.secrets import SUFFIX, encrypted_files, lab_recipients, wanted_for
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.secrets_care import clear
from fluobook.stages.secrets_care.wishes import TOP, Wish

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from fluobook.context import RunContext
    from fluobook.gitops import EncryptedFile


@dataclass(frozen=True)
class SecretFile:
    """One file; `object` names what is in it, `keys` the values that it holds.

    `wanted` are the recipients that .sops.yaml names, None where no rule fits. `differing` are keys whose value is not
    the one that a person has typed.
    """

    file: str
    object: str
    keys: tuple[str, ...]
    recipients: frozenset[str]
    wanted: frozenset[str] | None
    encrypted: bool
    stamp: str
    differing: frozenset[str] = frozenset()

    @property
    def folder(self) -> str:
        """The folder it is in."""
        return str(PurePosixPath(self.file).parent)

    @property
    def name(self) -> str:
        """Its file name."""
        return PurePosixPath(self.file).name

    @property
    def is_bundle(self) -> bool:
        """Whether it is a cluster's Talos secrets bundle, whose content nobody changes."""
        return not self.file.startswith(TOP + "/")


@dataclass(frozen=True)
class Generator:
    """A KSOPS generator: its file and what it lists."""

    file: str
    folder: str
    listed: tuple[str, ...]


@dataclass(frozen=True)
class Observation:
    """All of it.

    Args:
        files: the encrypted files, and those that should be.
        generators: the KSOPS generators.
        namespaces: for each folder that an Application deploys: where its objects go.
        rules: for each wished file that is not there: the recipients that .sops.yaml names for it.
        own: the operator's recipients.
        lab: the lab's recipients, whose keys everybody has.
        live: whether the target is live.
        wishes: what shall be set.
        renewed: files and keys that were made anew already; once is enough.
    """

    files: tuple[SecretFile, ...]
    generators: tuple[Generator, ...]
    namespaces: Mapping[str, str]
    rules: Mapping[str, frozenset[str] | None]
    own: frozenset[str]
    lab: frozenset[str]
    live: bool
    wishes: tuple[Wish, ...] = ()
    renewed: frozenset[tuple[str, str]] = frozenset()

    def find(self, file: str) -> SecretFile | None:
        """The file of that name, if it is there."""
        return next((one for one in self.files if one.file == file), None)


def observe(
    context: RunContext, wishes: Sequence[Wish] = (), renewed: AbstractSet[tuple[str, str]] = frozenset()
) -> Observation:
    """Read the repository; each file is decrypted in memory, which proves that nobody changed it without sops.

    Raises:
        AccessDenied: the operator's key does not open a file.
        Rejected: a file was changed without sops.
    """
    by_file = {wish.file: wish for wish in wishes}
    root = context.root
    for wish in wishes:
        context.redactor.add(*wish.asked.values())

    def read(one: EncryptedFile) -> SecretFile:
        return _file(context, one, by_file.get(one.file.relative_to(root).as_posix()))

    tree = gitops.read(root, context.platform.gitops.path)
    new = {file: wanted_for(root / file, root) for file in by_file if not (root / file).exists()}
    return Observation(
        tuple(in_parallel(read, encrypted_files(root))),
        _generators(context),
        {one.path: one.namespace for one in tree.applications if one.path},
        new,
        frozenset(identity.recipient for identity in age.read(context.secrets.age_key())),
        lab_recipients(root),
        context.policy.refuses_lab_key,
        tuple(wishes),
        frozenset(renewed),
    )


def _file(context: RunContext, one: EncryptedFile, wish: Wish | None) -> SecretFile:
    document = clear.document_of(clear.text_of(context, one.file), one.file)
    file = one.file.relative_to(context.root).as_posix()
    bundle = not file.startswith(TOP + "/")
    metadata = document.get("metadata") or {}
    held = {} if bundle else clear.values(document)
    return SecretFile(
        file,
        f"bundle {one.file.name.removesuffix(SUFFIX)}"
        if bundle
        else f"secret {metadata.get('namespace', '')}/{metadata.get('name', '')}",
        tuple(held),
        one.recipients,
        one.wanted,
        sops.is_encrypted(one.file),
        clear.stamp_of(one.file),
        frozenset(key for key, value in (wish.asked if wish else {}).items() if held.get(key) != value),
    )


def _generators(context: RunContext) -> tuple[Generator, ...]:
    found = []
    for file in sorted((context.root / TOP).rglob("*.yaml")):
        if "viaduct.ai" in file.read_text():
            for document in documents.read(file):
                listed = tuple(document.data.get("files") or ())
                where = file.relative_to(context.root)
                found.append(Generator(where.as_posix(), where.parent.as_posix(), listed))
    return tuple(found)
