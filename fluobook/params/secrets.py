"""References to secrets: parameters say where a secret is stored, never the secret itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator

from fluobook.errors import BadFile, ParamsError
from fluobook.files import read_text
from fluobook.params.fields import DERIVED, FilePath, Model, Text, matching
from fluobook.params.problems import refuse

Decrypt = Callable[[Path], Any]
"""Decrypts a SOPS file into the mapping (or text) inside."""

_SOURCES = ("env", "file", "sops")
Variable = Annotated[
    str,
    matching(r"[A-Za-z_][A-Za-z0-9_]*", "must be the name of an environment variable", "such as PROXMOX_TOKEN"),
]


class SecretRef(Model):
    """Where a secret is stored: exactly one of an environment variable, a file, or a key of a SOPS file."""

    env: Variable | None = None
    """Name of an environment variable."""
    file: FilePath | None = None
    """Path of a file; `~` is the home folder, a relative path starts at the repository."""
    sops: FilePath | None = None
    """Path of a file encrypted with SOPS, as for `file`."""
    key: Text | None = None
    """Dotted key inside the SOPS file."""

    @model_validator(mode="before")
    @classmethod
    def _is_a_reference(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise refuse(
                "a secret is never written here", "give {env: NAME}, {file: PATH} or {sops: PATH}", hidden=True
            )
        if isinstance(value, dict) and sum(value.get(source) is not None for source in _SOURCES) != 1:
            raise refuse("must name exactly one place", "give one of env, file and sops")
        return value

    @model_validator(mode="after")
    def _key_belongs_to_sops(self) -> SecretRef:
        if self.key and not self.sops:
            raise refuse("`key` is for a SOPS file only", "give `sops` too, or leave `key` out")
        return self

    def __str__(self) -> str:
        """Where the secret is, for a person."""
        if self.env:
            return f"environment variable {self.env}"
        return (
            f"file {self.file}" if self.file else f"SOPS file {self.sops}" + (f", key {self.key}" if self.key else "")
        )

    def resolve(self, base: Path, decrypt: Decrypt | None = None) -> str:
        """The secret itself, without surrounding white space.

        Args:
            base: the folder where relative paths start (the repository).
            decrypt: decrypts a SOPS file; needed for `sops` only.

        Raises:
            ParamsError: there is no secret at that place.
        """
        if self.env:
            secret = os.environ.get(self.env, "")
        elif self.file:
            secret = _read(located(self.file, base), self)
        else:
            secret = self._decrypted(located(self.sops or "", base), decrypt)
        if not secret.strip():
            remedy = f"export {self.env}=…" if self.env else "write the secret there, readable only by you"
            raise ParamsError(f"no secret in {self}", cause="it is empty or not set", remedy=remedy)
        return secret.strip()

    def _decrypted(self, path: Path, decrypt: Decrypt | None) -> str:
        if decrypt is None:
            raise ParamsError(f"{self} cannot be read here", cause="this caller cannot decrypt SOPS files")
        value = decrypt(path)
        for step in self.key.split(".") if self.key else ():
            value = value.get(step) if isinstance(value, dict) else None
        if not isinstance(value, str):
            raise ParamsError(f"no text in {self}", remedy="name the `key` of the secret")
        return value


class SecretReferences(Model):
    """Where the keys of the platform are stored."""

    age_key: SecretRef = SecretRef(file="~/.config/sops/age/keys.txt")
    """The age identity that decrypts the SOPS files."""
    bundle: Annotated[FilePath, DERIVED]
    """The encrypted Talos secrets bundle; talos/secrets/<cluster>.sops.yaml unless set."""


def secret_variables(value: Any) -> set[str]:
    """The environment variables that a platform, or a part of one, names as places of secrets."""
    if isinstance(value, SecretRef):
        return {value.env} if value.env else set()
    if isinstance(value, Model):
        value = [getattr(value, name) for name in type(value).model_fields]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return set().union(*map(secret_variables, parts))


def located(path: str, base: Path) -> Path:
    """A path from the parameters: `~` is the home folder, a relative path starts at `base`."""
    return base / Path(path).expanduser()


def _read(path: Path, reference: SecretRef) -> str:
    try:
        return read_text(path)
    except BadFile as error:
        raise ParamsError(f"no secret in {reference}", cause=error.message, remedy=error.remedy) from None
