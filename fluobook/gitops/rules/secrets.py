"""Secrets: encrypted for the right recipients, unchanged since, listed by a KSOPS generator, and without their keys."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.clients import age, sops
from fluobook.errors import AccessDenied, BadFile, OutsideError, ToolFailed
from fluobook.files import LARGEST, LARGEST_SEARCHED, packaged, pattern, read_text
from fluobook.gitops import alerts, backups, documents, kustomization, secrets
from fluobook.gitops.documents import Position, value_under, walk
from fluobook.gitops.secrets import SUFFIX, mapping, values_that_are_not_base64
from fluobook.gitops.tree import BACKUPS
from fluobook.kubernetes.rendering import FUNCTION, is_ksops_generator
from fluobook.params.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluobook.gitops.documents import Document, Finding, Key
    from fluobook.gitops.kustomization import Generator
    from fluobook.gitops.secrets import EncryptedFile
    from fluobook.gitops.snapshot import Snapshot

CREATION_RULES = ".sops.yaml"
_KEY_FORMS = {name: re.compile(form) for name, form in packaged("fluobook.gitops", "data/key_forms.yaml").items()}
_WORDS = (
    r"(?:password|passwd|passphrase|pwd|pass|token|(?:client|shared)[_-]?secret"
    r"|(?:api|access|auth|secret|private)[_-]?key)"
)
_SECRET_NAME = re.compile(rf"({_WORDS}|credential)s?$", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\$[({]|\$\w+$|\{\{|ENC\[|<")
_SECRET_URL = re.compile(r"https?://[^/\s@]+@|://[^/\s:@]*:[^/\s:@]+@|[?&]\w*token=[^&\s]")
_NAME = rf"(?P<name>(?<![\w.-])[\w.-]*(?:{_WORDS}|secret))"
_VALUE = r"""(?!ENC\[|(?:true|false|null|none)\b)[^\s"'{$<,;&]\S{3,}"""
_ASSIGNED = tuple(
    re.compile(form, re.IGNORECASE | re.MULTILINE)
    for form in (
        rf"""^[ \t]*(?:export[ ]+|-[ ]+)?["']?{_NAME}["']?[ \t]*[=:][ \t]*["']?{_VALUE}""",
        rf"""["']{_NAME}\\?["'][ \t]*:[ \t]*\\?["']{_VALUE}""",
        rf"""[{{,][ \t]*{_NAME}[ \t]*[=:][ \t]*["']?{_VALUE}""",
        rf"""{_NAME}=["']?{_VALUE}""",
    )
)
"""Where a text gives a secret a value: at the beginning of a line, in JSON, in a YAML flow mapping, by NAME=VALUE."""
_SEARCHED_FOR_KEYS = ("cluster-gitops", "talos", "params", "notebooks", "site", "docs", ".github")
_FIELDS = ("data", "stringData")
_PARTIAL = ("encrypted_regex", "unencrypted_regex", "encrypted_suffix", "unencrypted_suffix")
_BUNDLE = "talos/secrets/any.sops.yaml"
_VALUES = "cluster-gitops/apps/secrets/any.sops.yaml"


def secrets_are_encrypted(snapshot: Snapshot) -> Iterator[Finding]:
    """No plaintext Secret, no plaintext value in a file for SOPS, no password in a manifest or among chart values."""
    read = {encrypted.file for encrypted in snapshot.encrypted}
    for document in snapshot.documents:
        if isinstance(document.data.get("sops"), dict) and document.file not in read:
            message = f"it is encrypted, and its name does not end with {SUFFIX}"
            yield Position(document.file, 1).finding(message, "rename it, and list it in a KSOPS generator")
        elif document.file.name.endswith(SUFFIX) or "sops" in document.data:
            yield from _plaintext_values(document)
        elif document.kind == "Secret" and (document.data.get("data") or document.data.get("stringData")):
            remedy = f"name it …{SUFFIX} and `sops encrypt -i` it"
            yield document.at("kind").finding(f"Secret {document.name} is not encrypted", remedy)
        else:
            for path in _passwords(document.data):
                message = f"{document.kind} {document.name}: {'.'.join(map(str, path))} is a secret in plaintext"
                yield document.at(*path).finding(message, "name an existing Secret instead")
    for file in (encrypted.file for encrypted in snapshot.encrypted):
        is_manifest = snapshot.contains(file) and file.name.endswith(SUFFIX)
        if not is_manifest and not sops.is_encrypted(file):
            yield Position(file, 1).finding("SOPS has not encrypted it", f"sops encrypt -i {file}")
    yield from _passwords_in_patches(snapshot)
    yield from _assigned_values(snapshot)


def _passwords_in_patches(snapshot: Snapshot) -> Iterator[Finding]:
    """Secrets in patches of machine configurations, which fluobook reads in plaintext alone."""
    tops = [snapshot.root / name for name in ("talos", "site")]
    for file in (file for top in tops for file in sorted(top.rglob("patches/**/*.yaml"))):
        for document in snapshot.reader.read(file) if file.is_relative_to(tops[0]) or "talos" in file.parts else ():
            paths = {*_passwords(document.data)} | {("auth",)} & {(key,) for key in document.data}
            for path in sorted(paths, key=str):
                message = f"{'.'.join(map(str, path))} is a secret in plaintext, and a patch has no encrypted form"
                yield document.at(*path).finding(message, "docs/how-to/secrets.md says where else it can be")


def _assigned_values(snapshot: Snapshot) -> Iterator[Finding]:
    """Lines of text files that are no YAML, such as dotenv files and scripts."""
    for file in snapshot.all_files:
        if file not in snapshot.files and file.suffix != ".md":
            text = read_text(file, largest=LARGEST_SEARCHED, errors="replace")
            for number, line in enumerate(text.splitlines(), 1):
                if assigned := _assigned(line):
                    message = f"{assigned['name']} has a value in plaintext"
                    yield Position(file, number).finding(message, f"sops encrypt -i {file}, or remove it")


def _assigned(text: str) -> re.Match[str] | None:
    return next((match for form in _ASSIGNED if (match := form.search(text))), None)


def _plaintext_values(document: Document) -> Iterator[Finding]:
    name = document.file
    metadata = mapping(document.data.get("sops"))
    if not metadata:
        yield document.at().finding("SOPS has not encrypted it", f"sops encrypt -i {name}")
        return
    if lacking := sops.missing(metadata):
        message = f"its SOPS metadata has no {' and no '.join(lacking)}: it cannot be decrypted"
        yield document.at("sops").finding(message, f"restore the committed version: git checkout -- {name}")
        return
    for field in _FIELDS:
        if not isinstance(values := document.data.get(field) or {}, dict):
            yield document.at(field).finding(f"{field} is not a mapping", f"edit it with `sops edit {name}`")
            continue
        for key, value in values.items():
            if problem := _value_problem(value):
                yield document.at(field, key).finding(f"{field}.{key} {problem}", f"edit it with `sops edit {name}`")


def _value_problem(value: Any) -> str:
    """What is wrong with a value of an encrypted Secret; SOPS leaves its type, null and the empty text readable."""
    if value is None or value == "":
        return "is empty"
    if isinstance(value, dict | list):
        return "is not a text"
    if not str(value).startswith("ENC["):
        return "is plaintext"
    kinds = {"int": "a number", "float": "a number", "bool": "a boolean"}
    kind = kinds.get(str(value).rpartition("type:")[2].rstrip("]"), "")
    return f"is {kind}, and Kubernetes takes only texts: write it in quotes" if kind else ""


def _passwords(data: Any) -> Iterator[tuple[Key, ...]]:
    """The paths of texts that are secrets by their key, the `name` or flag before them, or a part of their own."""
    for path, key, value in walk(data):
        if _is_secret(str(key), value):
            yield path
        if isinstance(value, dict) and _is_secret(str(value.get("name", "")), value.get("value")):
            yield (*path, "value")
        for index, (flag, argument) in enumerate(pairwise(map(str, value) if isinstance(value, list) else ()), 1):
            if re.fullmatch(r"--?[\w.-]+", flag) and not argument.startswith("-") and _is_secret(flag, argument):
                yield (*path, index)


def _is_secret(name: str, value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    by_name = _SECRET_NAME.search(name) and not _PLACEHOLDER.match(value)
    return any((by_name, _assigned(value), _SECRET_URL.search(value)))


def keys_are_not_in_the_tree(snapshot: Snapshot) -> Iterator[Finding]:
    """No private key or token in what is committed beside the code; the lab's own key is public and named so."""
    for file in (file for name in _SEARCHED_FOR_KEYS for file in sorted((snapshot.root / name).rglob("*"))):
        if not file.is_file() or file.is_relative_to(snapshot.root / "params" / "lab"):
            continue
        if file.stat().st_size > (LARGEST if file.suffix in (".yaml", ".yml", ".json") else LARGEST_SEARCHED):
            continue  # `readable` reports it
        for number, name in _keys_in(read_text(file, largest=LARGEST_SEARCHED, errors="replace")):
            remedy = "remove it, and replace the key: Git keeps old versions"
            yield Position(file, number).finding(f"this line is {name}", remedy)


@lru_cache(maxsize=2048)
def _keys_in(text: str) -> list[tuple[int, str]]:
    """The lines of a text with a key, and what it is."""
    forms = {name: form for name, form in _KEY_FORMS.items() if form.search(text)}
    lines = enumerate(text.splitlines() if forms else (), 1)
    names = ((number, next((name for name, form in forms.items() if form.search(line)), "")) for number, line in lines)
    return [(number, name) for number, name in names if name]


def recipients_are_right(snapshot: Snapshot) -> Iterator[Finding]:
    """Every encrypted file is for exactly the recipients that .sops.yaml names for it, and these are valid."""
    rules_file = snapshot.root / CREATION_RULES
    document = next(iter(snapshot.reader.read(rules_file)), None) if rules_file.exists() else None
    places: dict[frozenset[str], Position] = {}
    problems: dict[str, Finding] = {}
    for index, rule in enumerate((document.data.get("creation_rules") or ()) if document else ()):
        recipients = sops.recipients_in(rule)
        place = document.at("creation_rules", index, "age") if document else Position(rules_file)
        places.setdefault(frozenset(recipients), place)
        if not recipients:
            yield place.finding("it names no recipient", "name one: age: age1…")
        for recipient in recipients:
            if problem := _recipient_problem(recipient):
                problems.setdefault(recipient, place.finding(problem, "name age recipients instead"))
    yield from problems.values()
    for encrypted in snapshot.encrypted:
        if encrypted.wanted is None:
            message = f"no rule of {CREATION_RULES} matches it"
            yield Position(encrypted.file, 1).finding(message, "add a rule for its folder")
        yield from _unusable_recipients(encrypted)
    for wanted, place in places.items():
        if wanted and not wanted & problems.keys():
            yield from _other_recipients([each for each in snapshot.encrypted if each.wanted == wanted], place)


def _unusable_recipients(encrypted: EncryptedFile) -> Iterator[Finding]:
    for recipient in encrypted.recipients:
        if problem := _recipient_problem(recipient):
            key = recipient if recipient in sops.SERVICES else "key_groups"
            yield _place(encrypted.file, "sops", key).finding(problem, "name age recipients, and encrypt it again")


def _other_recipients(files: list[EncryptedFile], place: Position) -> Iterator[Finding]:
    """Files for other recipients than their rule names, whose place is given: if all are alike, the rule is wrong."""
    actual = {encrypted.recipients for encrypted in files}
    is_rule = len(files) > 1 and len(actual) == 1 and frozenset() not in actual
    for encrypted in files:
        wanted = encrypted.wanted or frozenset()
        if encrypted.recipients in (frozenset(), wanted):
            continue
        here, there = (", ".join(sorted(names)) for names in (encrypted.recipients, wanted))
        if is_rule:
            message = f"it names {there}, and all {len(files)} files of this rule are encrypted for {here}"
            remedy = "correct the recipient; if the key is new, 10_secrets.ipynb re-encrypts the files"
            yield place.finding(message, remedy)
            return
        yield _place(encrypted.file, "sops", "age", 0, "recipient").finding(
            f"it is encrypted for {here}, and {CREATION_RULES} says {there}",
            "10_secrets.ipynb re-encrypts it, with a new data key",
        )


def _recipient_problem(recipient: str) -> str:
    if sops.is_age(recipient):
        return "" if age.is_intact(recipient) else f"{recipient} is no age recipient: a character of it is wrong"
    if recipient.startswith("age1pq1"):
        return f"{recipient[:12]}… is a post-quantum recipient, which age does not mix with Argo CD's X25519 key"
    if recipient in sops.SERVICES:
        return f"{recipient} can decrypt it too, and only age recipients may"
    return f"keys of {recipient} are needed to decrypt it, and Argo CD has one key"


def macs_are_intact(snapshot: Snapshot) -> Iterator[Finding]:
    """Every file that the lab's key decrypts is as SOPS wrote it; a check has no other keys."""
    identities = [read_text(file) for file in sorted((snapshot.root / "params" / "lab").glob("*.age"))]
    for file in (encrypted.file for encrypted in snapshot.encrypted):
        for identity in identities:
            try:
                yield from _wrong_content(file, sops.decrypt(file, identity))
            except AccessDenied:
                continue
            except OutsideError as error:
                if not sops.missing(sops.metadata(file)):
                    reason = error.detail.strip().splitlines()[-1:] if isinstance(error, ToolFailed) else []
                    message = f"SOPS cannot read it: {reason[0]}" if reason else error.message
                    remedy = f"restore the committed version: git checkout -- {file}"
                    key = "age" if "age block" in message else "lastmodified" if "parsing time" in message else "mac"
                    yield _place(file, "sops", key).finding(message, error.remedy or remedy)
            break


def _wrong_content(file: Path, text: str) -> Iterator[Finding]:
    """Values under `data` that are not base64; the finding does not show them."""
    for secret in yaml.safe_load_all(text) if file.name.endswith(SUFFIX) else ():
        for key in values_that_are_not_base64(secret) if isinstance(secret, dict) else ():
            remedy = "put it under stringData, or encode it"
            yield _place(file, "data", key).finding(f"data.{key} is not base64", remedy)


def _place(file: Path, *path: Key) -> Position:
    """The place of a value in an encrypted file."""
    return next((document.at(*path) for document in documents.read(file)), Position(file, 1))


def creation_rules_encrypt_everything(snapshot: Snapshot) -> Iterator[Finding]:
    """A bundle is encrypted as a whole; every value of a Kubernetes Secret is; files and rules agree."""
    file = snapshot.root / CREATION_RULES
    document = next(iter(snapshot.reader.read(file)), None) if file.exists() else None
    rules: list[dict[str, Any]] = (document.data.get("creation_rules") or []) if document else []
    for path in (_BUNDLE, _VALUES):
        patterns = [name for name, _ in secrets.creation_rules(snapshot.root, snapshot.reader)]
        index = next((at for at, name in enumerate(patterns) if name.search(path)), None)
        if document is None or index is None:
            yield Position(file, 1).finding(f"no rule matches {path}", "add one")
            continue
        rule, above = rules[index], ("creation_rules", index)
        partial = next((key for key in _PARTIAL if rule.get(key)), "")
        if path == _BUNDLE and partial:
            message = f"{partial} leaves keys of {path} in plaintext"
            yield document.at(*above).finding(message, "let the rule for bundles come first")
        elif path == _VALUES and not _covers(rule):
            message = f"{partial} leaves {_plaintext_fields(rule)} in plaintext"
            message = message if partial else f"{path} would be encrypted as a whole, and Argo CD could not read it"
            yield document.at(*above, partial or "path_regex").finding(message, "encrypted_regex: ^(data|stringData)$")
    for encrypted in snapshot.encrypted:
        metadata = sops.metadata(encrypted.file)
        is_manifest = encrypted.file.name.endswith(SUFFIX) and snapshot.contains(encrypted.file)
        if is_manifest and metadata and not sops.missing(metadata) and not _covers(metadata):
            key = next((key for key in _PARTIAL if metadata.get(key)), "mac")
            message = f"{key} leaves {_plaintext_fields(metadata)} in plaintext"
            yield _place(encrypted.file, "sops", key).finding(message, f"encrypt it again, as {CREATION_RULES} says")


def _covers(rule: dict[str, Any]) -> bool:
    return bool(rule.get("encrypted_regex")) and not _plaintext_fields(rule)


def _plaintext_fields(rule: dict[str, Any]) -> str:
    expression = rule.get("encrypted_regex")
    try:
        compiled = pattern(str(expression), CREATION_RULES) if expression else None
    except BadFile:
        return ""  # it is reported where the rules are read
    return ", ".join(field for field in _FIELDS if not compiled or not compiled.search(field))


def generators_list_what_exists(snapshot: Snapshot) -> Iterator[Finding]:
    """Every encrypted file is listed by one KSOPS generator; generators list what exists, and run ksops."""
    listed = snapshot.generators
    generators = [generator for generator in listed if generator.is_ksops]
    for document in (generator.document for generator in listed if not generator.is_ksops):
        if document.group == "viaduct.ai":
            yield document.at("kind").finding(f"{document.kind} generates nothing", "write ksops")
    for document in snapshot.documents:
        if is_ksops_generator(document.data) and document.file not in {each.document.file for each in listed}:
            generators.append(kustomization.Generator(document.file.parent, document))
            message = f"{document.file.name} is not under `generators`"
            place = Position(document.file.parent / kustomization.NAME, 1)
            yield place.finding(message, "list it there, and not under resources")
    read: set[Path] = set()
    for generator in generators:
        yield from _generator_defects(generator, read)
    for file in (encrypted.file for encrypted in snapshot.encrypted):
        if snapshot.contains(file) and file not in read:
            yield _unlisted(file, generators)


def _generator_defects(generator: Generator, read: set[Path]) -> Iterator[Finding]:
    """The defects of one generator; adds the files that it reads to `read`."""
    for source in generator.sources:
        place = generator.document.at(*source.path)
        if source.file in read:
            yield place.finding(f"{source.text} is listed twice", "list it once")
        if not source.file.is_file():
            remedy = "restore it, or remove it from the list: Argo CD then deletes its Secret from the cluster"
            yield place.finding(f"{source.text} does not exist", remedy)
        read.add(source.file)
    if "path: ksops" not in generator.document.annotations.get(FUNCTION, ""):
        message = f"it has no annotation {FUNCTION} that runs ksops"
        yield generator.document.at("metadata").finding(message, "add `exec: {path: ksops}` to it")


def _unlisted(file: Path, generators: list[Generator]) -> Finding:
    """An encrypted file that no generator lists: reported at the nearest generator above it."""
    above = [generator for generator in generators if file.is_relative_to(generator.folder)]
    if not above:
        return Position(file, 1).finding("no KSOPS generator in its folder", "add one that lists it")
    nearest = max(above, key=lambda generator: (len(generator.folder.parts), "files" in generator.document.data))
    message = f"{file.relative_to(nearest.folder)} is not listed: it would never reach the cluster"
    return nearest.document.at("files").finding(message, "add it to files")


def receivers_have_credentials(snapshot: Snapshot) -> Iterator[Finding]:
    """The Secret that Alertmanager reads has the credential of every receiver in the params."""
    keys = _keys_of(snapshot, alerts.NAMESPACE, alerts.SECRET)
    for file, platform in snapshot.platforms.items():
        for name in sorted(set(alerts.credentials(platform)) - keys):
            message = (
                f"receiver {name} has no credential: no Secret {alerts.NAMESPACE}/{alerts.SECRET} has the key {name}"
            )
            place = documents.read(file)[0].at("platform", "alerts", "receivers")
            yield place.finding(message, f"notebook 10_secrets: {{{alerts.FILE!r}: {{{name!r}: 'ask'}}}}")


def backups_are_whole(snapshot: Snapshot) -> Iterator[Finding]:
    """With a bucket, its Secrets have their keys, and each PostgreSQL cluster archives its log and has a schedule."""
    if BACKUPS not in snapshot.has:
        return
    brought = {app.namespace for app in snapshot.applications if app.only_with == BACKUPS}
    for file, platform in snapshot.platforms.items():
        for secret, keys in backups.credentials_of(platform, brought).items():
            existing = _keys_of(snapshot, secret.namespace, secret.name)
            if missing := [key for key in keys if key not in existing]:
                message = f"no Secret {secret.namespace}/{secret.name} has {' and '.join(missing)}"
                place = documents.read(file)[0].at("platform", "backups", "bucket")
                choices = {"@namespace": secret.namespace, **dict.fromkeys(missing, "ask")}
                yield place.finding(message, f"notebook 10_secrets: {{{secret.file!r}: {choices!r}}}")
    yield from _databases_without_backups(snapshot)


def _databases_without_backups(snapshot: Snapshot) -> Iterator[Finding]:
    """Clusters without an archive of their log or a schedule; schedules for a plugin that a cluster does not have."""
    schedules = snapshot.objects("ScheduledBackup")
    for cluster in (each for each in snapshot.objects("Cluster") if each.group == "postgresql.cnpg.io"):
        plugins = value_under(cluster.data, ("spec", "plugins")) or ()
        if not any(plugin.get("isWALArchiver") for plugin in plugins):
            message = f"Cluster {cluster.name} does not archive its log: no backup of it can be restored"
            place = cluster.at("spec", *(["plugins"] if plugins else []))
            yield place.finding(message, f"plugins: [{{name: {backups.PLUGIN}, isWALArchiver: true, parameters: …}}]")
        own = [each for each in schedules if (each.namespace, _of(each)) == (cluster.namespace, cluster.name)]
        if not any(not value_under(each.data, ("spec", "suspend")) for each in own):
            message = f"no ScheduledBackup is for Cluster {cluster.name}: its log is archived for nothing"
            yield cluster.at("metadata", "name").finding(
                message,
                "add a ScheduledBackup with method: plugin and a schedule of six fields, the first of which is seconds",
            )
        names = [plugin.get("name") for plugin in plugins]
        for each in own:
            name = value_under(each.data, ("spec", "pluginConfiguration", "name"))
            if value_under(each.data, ("spec", "method")) == "plugin" and name not in names:
                message = (
                    f"ScheduledBackup {each.name} is for the plugin {name}, which Cluster {cluster.name} does not have"
                )
                place = each.at("spec", "pluginConfiguration", "name")
                yield place.finding(message, did_you_mean(str(name), {str(known) for known in names}))


def _of(schedule: Document) -> Any:
    return value_under(schedule.data, ("spec", "cluster", "name"))


def _keys_of(snapshot: Snapshot, namespace: str, name: str) -> set[str]:
    """The keys of a Secret in the tree."""
    return {
        key
        for document in snapshot.documents
        if (document.kind, document.namespace, document.name) == ("Secret", namespace, name)
        for field in _FIELDS
        for key in mapping(document.data.get(field))
    }
