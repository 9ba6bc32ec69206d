"""Reads, writes and checks the files. Plaintext stays in memory and in pipes to sops; the redactor learns it first."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePosixPath
from secrets import token_urlsafe
from typing import Any

from ruamel.yaml import YAML

from fluobook import gitops
from fluobook.clients import age, sops
from fluobook.context import RunContext
from fluobook.errors import AccessDenied, Conflict, Refused, Rejected
from fluobook.files import parse_yaml, read_text, write_text
from fluobook.gitops import check, documents, kustomization, secrets
from fluobook.gitops.tree import TOPS, settings_of
from fluobook.stages.core.check import Check
from fluobook.stages.core.executor import Reporter, in_parallel
from fluobook.stages.core.plan import Action
from fluobook.stages.secrets.plan import BUNDLES, DATA_KEY, EMPTY, Generator, Observation, SecretChange, SecretFile

FIELDS = ("data", "stringData")
RANDOM_BYTES = 24
"""192 bits, as 32 letters, digits, - and _, which need no quoting anywhere."""

CHECKS = {
    "cleartext": "every secret is encrypted",
    "key": "no private key is in the tree",
    "recipient": "each file is encrypted for exactly the recipients in .sops.yaml",
    "generator": "the generators list exactly the existing files",
}
"""Rules of `fluobook check`, and the check that passes when they have no findings."""


def plaintext(context: RunContext, file: Path) -> str:
    """The decrypted text: with the operator's key, or the lab's for what was encrypted for that one.

    Raises:
        AccessDenied: neither decrypts it.
        Rejected: it was changed without sops, or is damaged.
    """
    text = _decrypt(context, file) if sops.is_encrypted(file) else read_text(file)
    for document in parse_yaml(text, file):
        if isinstance(document, dict):
            is_secret = document.get("kind") == "Secret"
            context.redactor.add(*_strings([document.get(field) for field in FIELDS] if is_secret else document))
            context.redactor.add(*values_of(document).values())
    return text


def _decrypt(context: RunContext, file: Path) -> str:
    try:
        return sops.decrypt(file, context.secrets.age_key())
    except AccessDenied:
        if not set(sops.recipients(file)) & secrets.lab_recipients(context.root):
            raise
    lab_keys = "\n".join(read_text(key) for key in sorted((context.root / "params" / "lab").glob("*.age")))
    return sops.decrypt(file, lab_keys)


def encrypt(context: RunContext, file: Path, text: str, recipients: Sequence[str]) -> None:
    """Encrypt in memory, read back what was encrypted, and only then replace the file.

    Raises:
        Rejected: the encrypted text has other content or recipients; the file is unchanged.
    """
    name = file.relative_to(context.root).as_posix()
    encrypted = sops.encrypt(text, path=file, config=context.root / ".sops.yaml")
    content = sops.read(encrypted, context.secrets.age_key(), name=name)
    if content != next(iter(parse_yaml(text, file)), None) or sorted(sops.recipients(encrypted)) != list(recipients):
        raise Rejected(
            f"{name} was encrypted with other content or recipients than planned; the file is unchanged",
            system="sops",
            remedy="inspect .sops.yaml: an earlier rule may match the file too",
        )
    write_text(file, encrypted)


def observe(
    context: RunContext, changes: Sequence[SecretChange] = (), renewed: AbstractSet[tuple[str, str]] = frozenset()
) -> Observation:
    """Read the repository. Each file is decrypted in memory, which proves that nobody changed it without sops.

    Raises:
        AccessDenied: the operator's key does not decrypt a file.
        Rejected: a file was changed without sops.
    """
    root, by_file = context.root, {change.file: change for change in changes}
    context.redactor.keep(*_names(context, changes))
    for change in changes:
        context.redactor.add(*change.typed.values())
    tree = gitops.of(context.platform, root)

    def read(entry: secrets.EncryptedFile) -> SecretFile:
        return _observe_file(context, entry, by_file.get(entry.file.relative_to(root).as_posix()))

    return Observation(
        tuple(in_parallel(read, (file for file in secrets.encrypted_files(root) if not tree.only_left_out(file.file)))),
        tuple(_generators(root)),
        {app.path: app.namespace for app in tree.applications if app.path},
        {file: secrets.wanted_for(root / file, root) for file in by_file if not (root / file).exists()},
        frozenset(identity.recipient for identity in age.read(context.secrets.age_key())),
        secrets.lab_recipients(root),
        context.policy.refuses_lab_key,
        tuple(changes),
        frozenset(renewed),
    )


def _names(context: RunContext, changes: Sequence[SecretChange]) -> Iterator[str]:
    """What is no secret, even where a value equals it: names in the tree, in the params and in the request."""
    yield from secrets.names(context.root)
    for _, key, value in documents.walk(context.platform.digest_data()):
        yield from (text for text in (key, value) if isinstance(text, str))
    for change in changes:
        yield from (*PurePosixPath(change.file).parts, PurePosixPath(change.file).name.removesuffix(secrets.SUFFIX))
        yield from (change.name, change.namespace, *change.choices)


def _observe_file(context: RunContext, entry: secrets.EncryptedFile, change: SecretChange | None) -> SecretFile:
    document = document_of(plaintext(context, entry.file), entry.file)
    file = entry.file.relative_to(context.root).as_posix()
    if not file.startswith(BUNDLES):
        metadata, values = document.get("metadata") or {}, values_of(document)
        title = f"secret {metadata.get('namespace', '')}/{metadata.get('name', '')}"
    else:
        title, values = f"bundle {entry.file.name.removesuffix(secrets.SUFFIX)}", {}
    typed = change.typed if change else {}
    return SecretFile(
        file,
        title,
        tuple(values),
        entry.recipients,
        entry.wanted,
        sops.is_encrypted(entry.file),
        _stamp(entry.file),
        frozenset(key for key, value in typed.items() if values.get(key) != value),
        _problems(document) if not file.startswith(BUNDLES) else {},
    )


def _problems(document: Any) -> dict[str, str]:
    """The keys of a Secret whose values Kubernetes refuses, and why; values are not shown."""
    problems = dict.fromkeys(secrets.values_that_are_not_base64(document), "is not base64")
    for field in FIELDS:
        if document.get(field) and not secrets.mapping(document[field]):
            problems[field] = "is not a mapping"
        for key, value in secrets.mapping(document.get(field)).items():
            if value is None or value == "":
                problems[key] = EMPTY
            elif not isinstance(value, str):
                problems[key] = "is not a text: write it in quotes"
    return problems


def _generators(root: Path) -> Iterator[Generator]:
    """The KSOPS generators that kustomizations list. Ours have nothing but `files`, in a file of their own."""
    kustomizations = (file for top in TOPS for file in (root / top).rglob(kustomization.NAME))
    for folder in sorted(file.parent for file in kustomizations):
        for generator in kustomization.generators(folder):
            document, sources = generator.document, generator.sources
            is_alone = document.file.name != kustomization.NAME and len(documents.read(document.file)) == 1
            if generator.is_ksops:
                yield Generator(
                    document.file.relative_to(root).as_posix(),
                    folder.relative_to(root).as_posix(),
                    tuple((source.text, _relative(source.file, root)) for source in sources),
                    frozenset(source.text for source in sources if not source.file.is_file()),
                    is_ours=is_alone and "secretFrom" not in document.data,
                )


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def perform(
    context: RunContext,
    action: Action,
    _report: Reporter,
    *,
    changes: Sequence[SecretChange] = (),
    renewed: MutableSet[tuple[str, str]] | None = None,
) -> Mapping[str, Any]:
    """Perform one action and note what was generated; the evidence names keys and recipients, never values."""
    name = action.data["file"]
    file = context.root / name
    if action.verb in ("list", "unlist"):
        return _write_list(file, action.data["files"])
    typed = next((change.typed for change in changes if change.file == name), {})
    document = _new_secret(action.data["secret"]) if action.verb == "create" else _current(context, file, action)
    for key in action.data.get("remove") or ():
        for field in FIELDS:
            (document.get(field) or {}).pop(key, None)
    for key in action.data["set"]:
        if not (value := typed.get(key)):
            value = token_urlsafe(RANDOM_BYTES)
            context.redactor.add(value)
        if key in (document.get("data") or {}):
            document["data"][key] = base64.b64encode(value.encode()).decode()
        else:
            document.setdefault("stringData", {})[key] = value
    text = dump(document)
    if secrets.lab_recipients(context.root).isdisjoint(action.data["recipients"]):
        text = re.sub(r"^# LAB SECRET.*\n", "", text)
    encrypt(context, file, text, action.data["recipients"])
    if renewed is not None:
        renewed |= {(name, key) for key in (DATA_KEY, *action.data["set"])}
    return {"recipients": action.data["recipients"], "set": action.data["set"]}


def _new_secret(secret: Mapping[str, str]) -> dict[str, Any]:
    metadata = {"name": secret["name"], "namespace": secret["namespace"]}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": secret["type"], "stringData": {}}


def _current(context: RunContext, file: Path, action: Action) -> Any:
    if _stamp(file) != action.data["stamp"]:
        raise Conflict(f"{file} was changed after the plan was made", system="file", remedy="run the plan cell again")
    return document_of(plaintext(context, file), file)


def _write_list(file: Path, files: Sequence[str]) -> Mapping[str, Any]:
    """Write a generator's list; the rest of the file, comments included, is unchanged."""
    document = document_of(read_text(file), file)
    if not document.get("files"):
        document["files"] = []
    document["files"][:] = files
    write_text(file, dump(document))
    return {"files": list(files)}


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks. The observation has decrypted every file, MAC included, or it would have raised."""
    rules = {name: check.RULES[name] for name in CHECKS}
    path, without, has = settings_of(context.platform)
    listed = check.findings(context.root, rules, path=path, without=without, has=has)
    files = len(observation.files)
    counted = f"{files} files, {len(observation.generators)} generators"
    public = [file.file for file in observation.files if file.recipients & observation.lab]
    refused = public if observation.refuses_lab_key else []
    allowed = "" if observation.refuses_lab_key else "; this target accepts it"
    return [
        Check("your key decrypts each file, unchanged since sops wrote it", passed=True, result=f"{files} of {files}"),
        *(
            _check(title, [finding.line_of_text() for finding in listed if finding.rule == rule], counted)
            for rule, title in CHECKS.items()
        ),
        _check("no file is for the lab's key, where that is refused", refused, f"{len(public)} files{allowed}"),
        _check(
            "Kubernetes takes every value", list(filter(None, (f.unresolved() for f in observation.files))), counted
        ),
        _check("every requested change is made", list(_missing(observation)), f"{len(observation.changes)} changes"),
    ]


def _check(name: str, problems: Sequence[str], result: str) -> Check:
    return Check(name, not problems, "; ".join(problems) or result, "run the notebook again and read its plan")


def _missing(observation: Observation) -> Iterator[str]:
    for change in observation.changes:
        file = observation.find(change.file)
        for key, choice in change.choices.items():
            present = file is not None and key in file.keys
            if present == (choice == "remove") and choice != "keep":
                yield f"{change.file}: {key}"
        if file:
            yield from (f"{change.file}: {key}" for key in file.differing)


def document_of(text: str, file: Path) -> Any:
    """The one document in a text, with its comments.

    Raises:
        Refused: there are several.
    """
    loaded = list(_yaml().load_all(text))
    if len(loaded) != 1 or not isinstance(loaded[0], dict):
        raise Refused(f"{file} does not hold exactly one document", remedy="give each Secret a file of its own")
    return loaded[0]


def dump(document: Any) -> str:
    """A document as text, comments included."""
    stream = io.StringIO()
    _yaml().dump(document, stream)
    return stream.getvalue()


def values_of(document: Any) -> dict[str, str]:
    """The plaintext values of a Secret; one that is no valid base64 or no text, as it is written."""
    values: dict[str, str] = {}
    for key, value in secrets.mapping(document.get("data")).items():
        content = secrets.decoded(value)
        values[key] = str(value) if content is None else content.decode(errors="replace")
    return values | {key: str(value) for key, value in secrets.mapping(document.get("stringData")).items()}


def _strings(value: Any) -> Iterator[str]:
    """Every string in a value, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, str):
        yield value


def _yaml() -> YAML:
    form = YAML()
    form.preserve_quotes = True
    form.width = 4096
    form.indent(mapping=2, sequence=4, offset=2)
    return form


def _stamp(file: Path) -> str:
    return hashlib.sha256(read_text(file).encode()).hexdigest()
