"""The changes that a notebook requests of the secrets in Git, what the repository holds, and the plan. Pure.

A request names a choice for each key, never a value:
{"apps/secrets/mail": {"@type": "kubernetes.io/basic-auth", "username": "ask", "password": "random"}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from fluobook.clients.sops import is_age
from fluobook.errors import Refused, UsageError
from fluobook.gitops.secrets import SUFFIX
from fluobook.gitops.tree import TOPS
from fluobook.params import Platform
from fluobook.stages.core.plan import Action, Plan

TOP, BUNDLES = TOPS[0], "talos/"
DATA_KEY = "@data-key"

CHOICES = {
    "ask": "a person types it, without echo",
    "random": "generated, if there is none yet",
    "renew": "generated again",
    "keep": "unchanged: it is no secret, or is known to be safe",
    "remove": "removed",
}
"""What may be chosen for a key of a Secret."""

OPTIONS = {
    "@name": "the Secret's name, if it differs from the file's",
    "@namespace": "a new Secret's namespace, if it is not that of the folder's Application",
    "@type": "the Secret's type, Opaque by default",
    DATA_KEY: '"renew" encrypts the file again, whatever else changes',
}
"""What may be set for a file; no key of a Secret can have such a name."""

_KEY = re.compile(r"[-._a-zA-Z0-9]+")


@dataclass(frozen=True)
class SecretChange:
    """The requested change of one file: a choice for each key, and the values that a person has typed."""

    file: str
    choices: Mapping[str, str]
    typed: Mapping[str, str] = field(repr=False)
    name: str
    type: str
    new_data_key: bool
    namespace: str = ""


def parse(
    request: Mapping[str, Mapping[str, str]], ask: Callable[[str], str] | None = None
) -> tuple[SecretChange, ...]:
    """The requested changes; asks for the values that are to be typed.

    Args:
        request: for each file, below cluster-gitops, with or without .sops.yaml: one of `CHOICES` for each key, and
            `OPTIONS`.
        ask: asks a person without echo; None where nobody can be asked.

    Raises:
        UsageError: a file, key or choice is unknown; the error never shows what stood in a choice's place.
    """
    return tuple(_parse_file(_file(path), choices, ask) for path, choices in request.items())


def _file(path: str) -> str:
    bare = path.removeprefix(TOP + "/").removesuffix(SUFFIX).strip("/")
    top = "" if bare.startswith(f"{TOPS[1]}/") else f"{TOP}/"
    if not re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)+", bare):
        raise UsageError(
            f"{path!r} cannot hold a secret",
            remedy=f'name folder and file below {TOP}, such as "apps/secrets/mail", or in {TOPS[1]}, "site/shop/mail"',
        )
    return f"{top}{bare}{SUFFIX}"


def _parse_file(file: str, request: Mapping[str, str], ask: Callable[[str], str] | None) -> SecretChange:
    choices = {key: choice for key, choice in request.items() if not key.startswith("@")}
    for key, choice in choices.items():
        if not _KEY.fullmatch(key):
            raise UsageError(f"{file}: {key!r} cannot be a key of a Secret", remedy="use letters, digits, - . and _")
        if choice not in CHOICES:
            raise UsageError(
                f"{file}: unknown choice for key {key}",
                cause="a notebook never contains the value itself: it would be saved in plaintext",
                remedy="choose one of " + ", ".join(f"{known} ({meaning})" for known, meaning in CHOICES.items()),
            )
    if unknown := sorted(key for key in request if key.startswith("@") and key not in OPTIONS):
        raise UsageError(f"{file}: unknown option {unknown[0]}", remedy=f"choose one of {', '.join(OPTIONS)}")
    typed = {key: _typed(file, key, ask) for key, choice in choices.items() if choice == "ask"}
    new_data_key = request.get(DATA_KEY) == "renew"
    for option in ("@name", "@namespace"):
        if not re.fullmatch(r"([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?", request.get(option, "")):
            remedy = "use lower-case letters, digits and -"
            raise UsageError(f"{file}: {option} {request[option]!r} cannot be the name of an object", remedy=remedy)
    name, namespace = request.get("@name", ""), request.get("@namespace", "")
    return SecretChange(file, choices, typed, name, request.get("@type", ""), new_data_key, namespace)


def _typed(file: str, key: str, ask: Callable[[str], str] | None) -> str:
    if ask is None:
        raise UsageError(
            f"{file}: nobody can be asked for {key} here",
            remedy='run the notebook in JupyterLab, or choose "random" to have the value generated',
        )
    if not (value := ask(f"{file} · {key}: ")):
        raise UsageError(f"{file}: nothing was typed for {key}", remedy="run the cell again")
    return value


NAME = "secrets"
EMPTY = "is empty"
"""What is wrong with a value that is missing."""


@dataclass(frozen=True)
class SecretFile:
    """One file.

    Args:
        file: its path in the repository.
        object: the object in it, for people.
        keys: the keys whose values it holds.
        recipients: it is encrypted for these.
        wanted: the recipients that .sops.yaml names; None if no rule matches.
        encrypted: whether it is.
        stamp: changes with every change of the file.
        differing: keys whose value is not the one that a person has typed.
        problems: the keys whose values Kubernetes would refuse, and why.
    """

    file: str
    object: str
    keys: tuple[str, ...]
    recipients: frozenset[str]
    wanted: frozenset[str] | None
    encrypted: bool
    stamp: str
    differing: frozenset[str] = frozenset()
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder it is in."""
        return str(PurePosixPath(self.file).parent)

    @property
    def name(self) -> str:
        """Its file name."""
        return PurePosixPath(self.file).name

    def unresolved(self, to_set: Iterable[str] = (), to_remove: Iterable[str] = ()) -> str:
        """The values that Kubernetes would refuse and that a change leaves as they are; "" if none."""
        changed = {*to_set, *to_remove}
        left = [f"{key} {why}" for key, why in self.problems.items() if key not in changed]
        return f"{self.file}: {', '.join(left)}" if left else ""

    @property
    def is_bundle(self) -> bool:
        """Whether it is a cluster's Talos secrets bundle, whose content never changes."""
        return self.file.startswith(BUNDLES)


@dataclass(frozen=True)
class Generator:
    """A KSOPS generator.

    Args:
        file: its path in the repository.
        folder: the kustomization's, in which it generates.
        listed: what stands in its list, and the path of the file that this means.
        missing: the entries of files that do not exist.
        is_ours: whether its list is changed here: it has nothing but a list.
    """

    file: str
    folder: str
    listed: tuple[tuple[str, str], ...]
    missing: frozenset[str] = frozenset()
    is_ours: bool = True


@dataclass(frozen=True)
class Observation:
    """What the repository holds.

    Args:
        files: the encrypted files, and those that should be.
        generators: the KSOPS generators.
        namespaces: for each folder that an Application deploys, the namespace of its objects.
        rules: for each file to create, the recipients that .sops.yaml names for it.
        own: the operator's recipients.
        lab: the lab's recipients, whose keys are public.
        refuses_lab_key: whether nothing may be encrypted for the lab's key.
        changes: the requested changes.
        renewed: files and keys that were generated again already; once is enough.
    """

    files: tuple[SecretFile, ...]
    generators: tuple[Generator, ...]
    namespaces: Mapping[str, str]
    rules: Mapping[str, frozenset[str] | None]
    own: frozenset[str]
    lab: frozenset[str]
    refuses_lab_key: bool
    changes: tuple[SecretChange, ...] = ()
    renewed: frozenset[tuple[str, str]] = frozenset()

    def find(self, file: str) -> SecretFile | None:
        """The file of that path, if it exists."""
        return next((entry for entry in self.files if entry.file == file), None)


def plan(platform: Platform, observation: Observation) -> Plan:
    """One action for each file that is written, and one for each generator whose list changes.

    Raises:
        Refused: a file would be for the lab's key although the target refuses it, or not for the operator, or no
            Application deploys its folder; nothing is planned then.
    """
    changes = {change.file: change for change in observation.changes}
    if observation.refuses_lab_key:
        _require_no_public_values(observation, changes)
    actions = [_create(observation, change) for change in observation.changes if not observation.find(change.file)]
    for file in observation.files:
        actions += filter(None, [_change(observation, file, changes.get(file.file))])
    for generator in observation.generators:
        actions += filter(None, [_list(observation, generator, actions)])
    changed = sum(action.verb != "create" for action in actions)
    kept = len(observation.files) + len(observation.generators) - changed
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), notes=tuple(_notes(observation, actions)))


def _create(observation: Observation, change: SecretChange) -> Action:
    path = PurePosixPath(change.file)
    folder = str(path.parent)
    there = [generator for generator in observation.generators if generator.folder == folder]
    if there and not any(generator.is_ours for generator in there):
        raise Refused(
            f"{change.file}: the generator {there[0].file} has more than a list of files",
            cause="this notebook changes only generators that have nothing but `files`, one to a YAML file",
            remedy=f"add a second generator with a list of files to {folder}/kustomization.yaml",
        )
    folders = sorted({g.folder for g in observation.generators if g.is_ours and g.folder in observation.namespaces})
    if folder not in folders:
        raise Refused(
            f"{change.file}: no Application deploys secrets from {folder}",
            remedy=f"put it in {' or '.join(folders)}, or add an Application with a KSOPS generator there",
        )
    name = change.name or path.name.removesuffix(SUFFIX)
    namespace = change.namespace or observation.namespaces[folder]
    keys = [key for key, choice in change.choices.items() if choice != "remove"]
    recipients = _recipients(observation, change.file, observation.rules.get(change.file))
    data = {
        "file": change.file,
        "recipients": recipients,
        "set": keys,
        "secret": {"name": name, "namespace": namespace, "type": change.type or "Opaque"},
    }
    return Action(
        change.file,
        "create",
        f"secret {namespace}/{name}",
        f"{', '.join(keys) or 'no keys'} · for {', '.join(recipients)}",
        f"{change.file} does not exist",
        system="sops",
        data=data,
    )


def _change(observation: Observation, file: SecretFile, change: SecretChange | None) -> Action | None:
    """The one action that writes a file, whatever the reasons; None if it stays."""
    to_set, to_remove, new_data_key = _requested(file, change, observation.renewed)
    reasons = [f"set {', '.join(to_set)}"] if to_set else []
    reasons += [f"remove {', '.join(to_remove)}"] if to_remove else []
    reasons += ["a new data key is requested"] if new_data_key else []
    if not file.encrypted:
        reasons.append("it is not encrypted")
    elif file.wanted is not None:
        if removed := sorted(file.recipients - file.wanted):
            reasons.append(f"{', '.join(removed)} is no longer a recipient")
        if added := sorted(file.wanted - file.recipients):
            reasons.append(f"{', '.join(added)} is a new recipient")
    if not reasons or file.unresolved(to_set, to_remove):
        return None
    recipients = _recipients(observation, file.file, file.wanted)
    verb = "change" if to_set or to_remove else "re-key" if file.encrypted else "encrypt"
    data = {"file": file.file, "recipients": recipients, "set": to_set, "remove": to_remove, "stamp": file.stamp}
    detail = f"for {', '.join(recipients)}"
    return Action(file.file, verb, file.object, detail, "; ".join(reasons), system="sops", data=data)


def _requested(
    file: SecretFile, change: SecretChange | None, renewed: frozenset[tuple[str, str]]
) -> tuple[list[str], list[str], bool]:
    """The keys to set and to remove, and whether the data key must be new."""
    if change is None:
        return [], [], False
    is_due = {
        "ask": lambda key: key not in file.keys or key in file.differing,
        "random": lambda key: key not in file.keys or file.problems.get(key) == EMPTY,
        "renew": lambda key: key not in file.keys or (file.file, key) not in renewed,
    }
    to_set = [key for key, choice in change.choices.items() if choice in is_due and is_due[choice](key)]
    to_remove = [key for key, choice in change.choices.items() if choice == "remove" and key in file.keys]
    return to_set, to_remove, change.new_data_key and (file.file, DATA_KEY) not in renewed


def _recipients(observation: Observation, file: str, wanted: frozenset[str] | None) -> list[str]:
    """The recipients of a file.

    Raises:
        Refused: there are none, or one is no age key, or the lab's, or the operator is not among them.
    """
    if not wanted:
        raise Refused(f"no rule of .sops.yaml names recipients for {file}", remedy="add a rule for its folder")
    if others := sorted(recipient for recipient in wanted if not is_age(recipient)):
        raise Refused(
            f".sops.yaml names {', '.join(others)} for {file}",
            cause="Argo CD decrypts with one age key, and this notebook encrypts only for age and SSH keys",
            remedy="name age recipients there, and nothing else",
        )
    if observation.refuses_lab_key and wanted & observation.lab:
        raise Refused(
            f".sops.yaml names the lab's recipient for {file}",
            cause="the lab's key is public: everybody with this repository could decrypt a live cluster's secrets",
            remedy="put your own recipient into .sops.yaml in its place, then open this notebook again",
        )
    if not wanted & observation.own:
        raise Refused(
            f".sops.yaml names {', '.join(sorted(wanted))} for {file}, which is not your key",
            cause="you could not decrypt the file any more, nor could Argo CD, which gets your key",
            remedy="add your own recipient to .sops.yaml, or name the right key in the params (secrets.age_key)",
        )
    return sorted(wanted)


def _require_no_public_values(observation: Observation, changes: Mapping[str, SecretChange]) -> None:
    """Every value that was encrypted for the lab's key is public: each must be replaced, or declared to be no secret.

    Raises:
        Refused: it names the values that are left, or .sops.yaml still names the lab's recipient.
    """
    public: dict[str, list[str]] = {}
    for file in observation.files:
        _recipients(observation, file.file, file.wanted)
        if not file.recipients & observation.lab:
            continue
        if file.is_bundle:
            raise Refused(
                f"{file.file} was encrypted for the lab's key: everybody can read the cluster's PKI",
                remedy="delete the file and create the cluster again: its certificates cannot be made secret again",
            )
        choices = changes[file.file].choices if file.file in changes else {}
        if keys := [key for key in file.keys if choices.get(key, "random") == "random"]:
            public[file.file] = keys
    if public:
        listed = "; ".join(f"{', '.join(keys)} in {file}" for file, keys in public.items())
        example = json.dumps({file: dict.fromkeys(keys, "renew") for file, keys in public.items()})
        raise Refused(
            f"values that were encrypted for the lab's key are public: {listed}",
            remedy=f'for each choose one of "renew", "ask", "keep", "remove": secrets = {example}',
        )


def _list(observation: Observation, generator: Generator, actions: Iterable[Action]) -> Action | None:
    """The action that makes a generator list the files of its folder, the planned ones included; None if it stays.

    Of several generators in a folder, the first of ours receives what none of them lists.
    """
    if not generator.is_ours:
        return None
    listed = {path for each in observation.generators for _, path in each.listed}
    new = [action.id for action in actions if action.verb == "create"]
    present = [file.file for file in observation.files] + new
    first = next(each for each in observation.generators if each.is_ours and each.folder == generator.folder)
    added = sorted(
        path for path in present if str(PurePosixPath(path).parent) == generator.folder and path not in listed
    )
    added = [PurePosixPath(path).name for path in added] if generator is first else []
    kept = {path: name for name, path in reversed(generator.listed) if name not in generator.missing}
    files = [name for name, path in generator.listed if kept.get(path) == name]
    files = [*dict.fromkeys(files), *added]
    if files == [name for name, _ in generator.listed]:
        return None
    gone = [name for name, _ in generator.listed if name in generator.missing]
    reasons = [*(f"{name} is not listed" for name in added), *(f"{name} does not exist" for name in gone)]
    return Action(
        generator.file,
        "unlist" if gone else "list",
        f"generator {generator.folder}",
        ", ".join(files),
        "; ".join(reasons) or "a file is listed twice",
        needs=tuple(path for path in new if PurePosixPath(path).name in added),
        system="generator",
        data={"file": generator.file, "files": files},
        destroys=tuple(PurePosixPath(name).name.removesuffix(SUFFIX) for name in gone),
    )


def _notes(observation: Observation, actions: Iterable[Action]) -> Iterator[str]:
    verbs = {action.verb for action in actions}
    changed = {action.id: action.data for action in actions}
    for file in observation.files:
        done = changed.get(file.file, {})
        if problem := file.unresolved(done.get("set", ()), done.get("remove", ())):
            yield f"left as it is: {problem}; correct it with `sops edit`, or request its keys here"
    if any(file.encrypted and file.recipients - (file.wanted or file.recipients) for file in observation.files):
        yield "a removed recipient still knows the values that it has read and that Git keeps: renew them too"
    if gone := [name for action in actions for name in action.destroys]:
        yield f"Argo CD deletes the Secrets {', '.join(gone)} from the cluster; restore a file to keep its Secret"
    if "encrypt" in verbs:
        yield "what was committed in plaintext stays in Git's history: renew its values too"
    if verbs:
        yield "Argo CD deploys it once it is committed and pushed"
