"""SOPS: encrypts and decrypts text; the plaintext is never in a file or an argument.

Plaintext is passed by pipes and the age key by environment. The keys in the operator's home folder are not used, so
that a file that decrypts here decrypts in the cluster too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fluobook.clients import age
from fluobook.clients.tools import find, run_tool
from fluobook.errors import AccessDenied, BadFile, NotFound, OutsideError, Rejected, ToolFailed
from fluobook.files import parse_json, parse_yaml, read_text, temporary_folder
from fluobook.kubernetes.manifests import KubernetesLoader

DEADLINE = 60.0
EXIT_NO_KEY = "128"
EXIT_MAC = "51"
EXIT_DAMAGED = "25"


def encrypt(
    text: str,
    *,
    path: Path,
    config: Path | None = None,
    recipients: Sequence[str] = (),
    encrypted_regex: str = "",
) -> str:
    """The text, encrypted.

    Args:
        text: YAML or JSON in plaintext.
        path: the file's path, which selects the creation rule and the format; it is not written.
        config: the .sops.yaml whose rules decide; or else
        recipients: the age recipients to encrypt for, with
        encrypted_regex: the keys whose values are encrypted; "" encrypts every value.

    Raises:
        NotFound: no creation rule matches the path.
        ToolFailed: sops failed otherwise.
    """
    rules = ["--age", ",".join(recipients)] if recipients else []
    rules += ["--encrypted-regex", encrypted_regex] if recipients and encrypted_regex else []
    with temporary_folder("sops") as home:
        # With recipients, sops starts in an empty folder, since a .sops.yaml further up would override them.
        name, folder = (path.name, home) if config is None or recipients else _relative(path, config)
        env = _env(str(home), None if recipients else config)
        try:
            return _sops(["encrypt", "--filename-override", name, *rules], text, env, folder)
        except ToolFailed as error:
            if "no matching creation rules" not in error.detail:
                raise
            raise NotFound(
                f"no creation rule of {config} matches {name}", system="sops", detail=error.detail, code=error.code
            ) from error


def decrypt(source: Path | str, identity: str, *, name: str = "") -> str:
    """The plaintext of an encrypted file; its MAC is verified, so it was not changed since.

    Args:
        source: a file, or the encrypted YAML itself.
        identity: the text of an age key file, or the bare key.
        name: the name of a source that is text, for messages.

    Raises:
        NotFound: there is no such file.
        AccessDenied: it was encrypted for other keys, which the cause names by their public halves.
        Rejected: it was changed after it was encrypted, it is damaged, or it is not encrypted at all.
        ToolFailed: sops failed otherwise.
    """
    text, what = (source, name or "the text") if isinstance(source, str) else (_read(source), name or str(source))
    with temporary_folder("sops") as home:
        kind = _kind(text)
        env = {**_env(str(home), None), "SOPS_AGE_KEY": identity}
        try:
            return _sops(["decrypt", "--filename-override", f"stdin.{kind}"], text, env)
        except ToolFailed as error:
            raise _translated(error, what, text, identity) from error


def read(source: Path | str, identity: str, *, name: str = "") -> Any:
    """The decrypted YAML as plain data; errors as in `decrypt`."""
    documents = parse_yaml(decrypt(source, identity, name=name), name or "the decrypted text")
    return documents[0] if documents else None


SERVICES = ("pgp", "kms", "gcp_kms", "azure_kv", "azure_keyvault", "hc_vault", "hc_vault_transit_uri")
"""Where SOPS names holders of other keys than age's, in files or in .sops.yaml."""


def recipients(source: Path | str) -> tuple[str, ...]:
    """Who can decrypt a file (or text): see `recipients_in`; empty when it is not encrypted."""
    return recipients_in(metadata(source))


def recipients_in(rule: Mapping[str, Any]) -> tuple[str, ...]:
    """Who can decrypt, as SOPS metadata or a rule of .sops.yaml says it.

    age recipients (age1…) and SSH keys without their comment, the names of other services (pgp, kms), and, where it
    takes keys of several groups, how many ("2 of 2 key groups").
    """
    groups = [group for group in rule.get("key_groups") or () if isinstance(group, dict)]
    threshold = rule.get("shamir_threshold")
    needed = threshold if isinstance(threshold, int) and threshold else len(groups)
    recipients = [f"{needed} of {len(groups)} key groups"] if len(groups) > 1 and needed > 1 else []
    for group in (rule, *groups):
        listed = group.get("age") or ()
        for entry in listed.replace("\n", ",").split(",") if isinstance(listed, str) else listed:
            words = str(entry.get("recipient", "") if isinstance(entry, dict) else entry).split()
            recipients += [" ".join(words[: 2 if words[0].startswith("ssh-") else 1])] if words else []
        recipients += [service for service in SERVICES if group.get(service)]
    return tuple(dict.fromkeys(recipients))


def is_age(recipient: str) -> bool:
    """Whether a recipient is a key that age encrypts for beside an X25519 key, such as Argo CD's."""
    return recipient.startswith(("age1", "ssh-")) and not recipient.startswith("age1pq1")


def is_encrypted(source: Path | str) -> bool:
    """Whether it has SOPS metadata with a MAC."""
    return bool(metadata(source).get("mac"))


def missing(data: Mapping[str, Any]) -> list[str]:
    """What SOPS always writes and its metadata does not have: the file is truncated, or was edited by hand."""
    return [key for key in ("lastmodified", "mac", "version") if not data.get(key)]


def metadata(source: Path | str) -> dict[str, Any]:
    """The SOPS metadata of a file (or text): recipients, MAC, rules; empty if it is not encrypted."""
    return _metadata(source if isinstance(source, str) else _read(source))


def _relative(path: Path, config: Path) -> tuple[str, Path]:
    """The path as the rules of .sops.yaml match it, and the folder to start in: rules are relative to it."""
    folder, whole = config.resolve().parent, path.resolve()
    return str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole), folder


def _sops(arguments: list[str], text: str, env: dict[str, str | None], folder: Path | None = None) -> str:
    command: list[str | Path] = [find("sops").path, *arguments]
    return run_tool("sops", command, stdin=text, env=env, cwd=folder, deadline=DEADLINE).stdout


def _kind(text: str) -> str:
    """The format of an encrypted text, as sops names it; one without structure is encrypted as JSON."""
    if text.lstrip().startswith("{"):
        return "json"
    return "env" if "\nsops_mac=" in text else "ini" if "\n[sops]\n" in text else "yaml"


def _metadata(text: str) -> dict[str, Any]:
    if _kind(text) in ("env", "ini"):
        return _flat_metadata(text)
    try:  # SOPS indents JSON by tabs, which YAML refuses
        name = "the encrypted file"
        documents = (
            [parse_json(text, name)] if _kind(text) == "json" else parse_yaml(text, name, loader=KubernetesLoader)
        )
        document = next(iter(documents), None)
    except BadFile:
        return {}
    metadata = document.get("sops") if isinstance(document, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _flat_metadata(text: str) -> dict[str, Any]:
    """The metadata of a dotenv or INI file: `sops_age__list_0__map_recipient=age1…`, without the prefix in INI."""
    lines = text.partition("\n[sops]\n")[2].splitlines() or [
        line.removeprefix("sops_") for line in text.splitlines() if line.startswith("sops_")
    ]
    metadata: dict[str, Any] = {}
    for name, _, value in (line.partition("=") for line in lines):
        key, is_item, item = name.strip().partition("__list_")
        if is_item:
            number, _, field = item.partition("__map_")
            metadata.setdefault(key, {}).setdefault(number, {})[field] = value.strip()
        else:
            metadata[key] = value.strip()
    return {key: list(value.values()) if isinstance(value, dict) else value for key, value in metadata.items()}


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except BadFile as error:
        raise NotFound(error.message, system="sops", remedy=error.remedy) from error


def _env(home: str, config: Path | None) -> dict[str, str | None]:
    """An environment without the operator's own keys, rules and key services."""
    return {
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "SOPS_CONFIG": str(config.resolve()) if config else None,
        "SOPS_DISABLE_VERSION_CHECK": "1",
        **dict.fromkeys(("SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "SOPS_AGE_KEY_CMD", "SOPS_AGE_RECIPIENTS"), None),
    }


_FOREIGN = "identity did not match any of the recipients"


def _translated(error: ToolFailed, name: str, text: str, identity: str) -> OutsideError:
    """The error for sops' exit code; unchanged if it is not known."""
    given: dict[str, Any] = {"system": "sops", "detail": error.detail, "code": error.code, "facts": {"file": name}}
    if error.code == EXIT_NO_KEY:
        blocks = " ".join(error.detail.replace("|", " ").split()).split(": FAILED - ")[1:]
        own = {key.recipient for key in age.read(identity)}
        if any(_FOREIGN not in block for block in blocks) or own & set(recipients(text)):
            return Rejected(f"{name} is damaged: its age block cannot be decrypted", **given)
        cause = f"it is encrypted for {', '.join(recipients(text)) or 'nobody'}"
        return AccessDenied(f"{name} cannot be decrypted with this age key", cause=cause, **given)
    if error.code == EXIT_MAC:
        return Rejected(f"{name} was changed after it was encrypted (its MAC does not match)", **given)
    if error.code == EXIT_DAMAGED:
        return Rejected(f"{name} is damaged: a value cannot be decrypted", **given)
    if "metadata not found" in error.detail:
        return Rejected(f"{name} is not encrypted", **given)
    return error
