"""SOPS: encrypts and decrypts text without its clear form ever touching a disk or an argument list.

Clear text travels by pipes, the age key by environment, and the keys of the operator's own home folder are shut out, so
that what decrypts here decrypts in the cluster too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from fluobook.clients.run_tool import run_tool
from fluobook.clients.tools import find
from fluobook.errors import AccessDenied, NotFound, Rejected, ToolFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE = 60.0
EXIT_NO_KEY = "128"
EXIT_MAC = "51"
EXIT_DAMAGED = "25"
EXIT_NO_METADATA = "1"


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
        text: YAML or JSON in clear.
        path: the file that it will be; its name picks the creation rule and the format. It is not written.
        config: the .sops.yaml whose rules decide; or else
        recipients: the age recipients to encrypt for, with
        encrypted_regex: the keys whose values are encrypted; "" encrypts every value.

    Raises:
        NotFound: no creation rule fits the path.
        ToolFailed: sops failed otherwise.
    """
    rules = ["--age", ",".join(recipients)] if recipients else []
    rules += ["--encrypted-regex", encrypted_regex] if recipients and encrypted_regex else []
    with tempfile.TemporaryDirectory(prefix="fluobook-sops-") as home:
        # Recipients given: sops starts in an empty folder, or a .sops.yaml further up would overrule them.
        name, folder = (path.name, Path(home)) if config is None or recipients else _relative(path, config)
        env = _env(home, None if recipients else config)
        try:
            return _sops(["encrypt", "--filename-override", name, *rules], text, env, folder)
        except ToolFailed as error:
            if "no matching creation rules" not in error.detail:
                raise
            raise NotFound(
                f"no creation rule of {config} fits {name}", system="sops", detail=error.detail, code=error.code,
                remedy=f"add a rule with a path_regex for {name} to {config}",
            ) from error  # fmt: skip


def decrypt(source: Path | str, identity: str, *, name: str = "") -> str:
    """The clear text of an encrypted file; its MAC has been verified, so nothing in it was changed since.

    Args:
        source: a file, or the encrypted YAML itself.
        identity: the text of an age key file, or the bare key.
        name: what an error calls a source that is text.

    Raises:
        NotFound: there is no such file.
        AccessDenied: the key is not one of those that it was encrypted for; both are named by their public halves.
        Rejected: it was changed after it was encrypted, it is damaged, or it is not encrypted at all.
        ToolFailed: sops failed otherwise.
    """
    text, what = (source, name or "the text") if isinstance(source, str) else (_read(source), name or str(source))
    with tempfile.TemporaryDirectory(prefix="fluobook-sops-") as home:
        kind = "json" if text.lstrip().startswith("{") else "yaml"
        env = {**_env(home, None), "SOPS_AGE_KEY": identity}
        try:
            return _sops(["decrypt", "--filename-override", f"stdin.{kind}"], text, env)
        except ToolFailed as error:
            _explain(error, what, text)


def read(source: Path | str, identity: str, *, name: str = "") -> Any:
    """The decrypted YAML as plain data; errors as in `decrypt`."""
    return yaml.safe_load(decrypt(source, identity, name=name))


def recipients(source: Path | str) -> tuple[str, ...]:
    """The age recipients that a file (or text) is encrypted for; empty when it is not encrypted."""
    return tuple(entry["recipient"] for entry in metadata(source).get("age") or ())


def is_encrypted(source: Path | str) -> bool:
    """Whether it carries SOPS metadata with a MAC."""
    return bool(metadata(source).get("mac"))


def metadata(source: Path | str) -> dict[str, Any]:
    """What SOPS has noted in a file (or text): key holders, MAC, rules; empty when it is not encrypted."""
    return _metadata(source if isinstance(source, str) else _read(source))


def _relative(path: Path, config: Path) -> tuple[str, Path]:
    """The path as the rules of .sops.yaml see it, and the folder to start in: rules are relative to their own file."""
    folder, whole = config.resolve().parent, path.resolve()
    return str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole), folder


def _sops(arguments: list[str], text: str, env: dict[str, str | None], folder: Path | None = None) -> str:
    command: list[str | Path] = [find("sops").path, *arguments]
    return run_tool("sops", command, stdin=text, env=env, cwd=folder, deadline=DEADLINE).stdout


def _metadata(text: str) -> dict[str, Any]:
    try:
        document = next(iter(yaml.safe_load_all(text)), None)
    except yaml.YAMLError:
        return {}
    return (document.get("sops") or {}) if isinstance(document, dict) else {}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}", system="sops", remedy="check the path") from error


def _env(home: str, config: Path | None) -> dict[str, str | None]:
    """Surroundings without the operator's own keys, rules and key services."""
    return {
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "SOPS_CONFIG": str(config.resolve()) if config else None,
        "SOPS_DISABLE_VERSION_CHECK": "1",
        **dict.fromkeys(("SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "SOPS_AGE_KEY_CMD", "SOPS_AGE_RECIPIENTS"), None),
    }


def _explain(error: ToolFailed, what: str, text: str) -> NoReturn:
    """What sops' exit code means, as an error of ours."""
    told: dict[str, Any] = {"system": "sops", "detail": error.detail, "code": error.code}
    wanted = ", ".join(recipients(text)) or "nobody"
    if error.code == EXIT_NO_KEY:
        raise AccessDenied(
            f"{what} cannot be decrypted with this age key",
            cause=f"it is encrypted for {wanted}",
            remedy="use the key that belongs to one of these, or `sops updatekeys` with one that does",
            **told,
        ) from error
    if error.code == EXIT_MAC:
        raise Rejected(
            f"{what} was changed after it was encrypted (its MAC does not fit)",
            cause="somebody edited it without sops, or a merge did",
            remedy="take the committed version back, and edit it with `sops edit`",
            **told,
        ) from error
    if error.code == EXIT_DAMAGED:
        raise Rejected(
            f"{what} is damaged: a value cannot be decrypted", remedy="take the committed version back", **told
        ) from error
    if "metadata not found" in error.detail:
        raise Rejected(f"{what} is not encrypted", remedy=f"sops encrypt -i {what}", **told) from error
    raise error
