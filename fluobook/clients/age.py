"""age keys: generated, read, and identified by their public half; SOPS encrypts for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyrage

from fluobook.errors import BadFile, Rejected


@dataclass(frozen=True)
class Identity:
    """One age key: `recipient` is its public half (age1…), `secret` the half that decrypts and is never shown."""

    recipient: str
    secret: str = field(repr=False)

    def file(self, created: datetime | None = None) -> str:
        """The key as `age-keygen` writes it to keys.txt."""
        when = (created or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"# created: {when}\n# public key: {self.recipient}\n{self.secret}\n"


def generate() -> Identity:
    """A new X25519 key."""
    key = pyrage.x25519.Identity.generate()
    return Identity(str(key.to_public()), str(key))


def read(text: str, name: str = "the age key file") -> tuple[Identity, ...]:
    """The keys in the text of a keys.txt.

    Args:
        text: its content; comments and blank lines are ignored.
        name: its name in messages, such as its path.

    Raises:
        Rejected: it contains no key, or a damaged one, which the error never shows.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise Rejected(f"{name} contains no age key", system="age", facts={"file": name})
    return tuple(_identity(line, name, number) for number, line in enumerate(lines, 1))


def public_key(text: str, name: str = "the age key file") -> str:
    """The recipient of the first key in the text; see `read`."""
    return read(text, name)[0].recipient


def is_intact(recipient: str) -> bool:
    """Whether the checksum of an X25519 recipient is right; true for recipients of other kinds."""
    if not recipient.startswith("age1") or "1" in recipient[4:]:
        return True
    try:
        return bool(pyrage.x25519.Recipient.from_str(recipient))
    except pyrage.RecipientError:
        return False


HEADER = b"age-encryption.org/v1"
"""How an encrypted file begins."""


def encrypt(data: bytes, recipients: Iterable[str]) -> bytes:
    """The data, encrypted for X25519 and SSH recipients, as `age` does.

    Raises:
        Rejected: a recipient is none.
    """
    try:
        return pyrage.encrypt(data, [_recipient(recipient) for recipient in recipients])
    except (pyrage.RecipientError, pyrage.EncryptError) as error:
        raise Rejected(f"nothing can be encrypted for these recipients: {error}", system="age") from error


def _recipient(text: str) -> pyrage.x25519.Recipient | pyrage.ssh.Recipient:
    return (pyrage.ssh if text.startswith("ssh-") else pyrage.x25519).Recipient.from_str(text)


def decrypt(data: bytes, keys: str, name: str) -> bytes:
    """What a file contains.

    Args:
        data: the encrypted file.
        keys: the text of an age key file.
        name: the file's name in messages.

    Raises:
        BadFile: it is encrypted for other keys, or was changed since.
    """
    identities = [pyrage.x25519.Identity.from_str(identity.secret) for identity in read(keys)]
    problem = ""
    try:
        return pyrage.decrypt(data, identities)
    except pyrage.DecryptError as error:
        problem = str(error)
    raise BadFile(
        name,
        f"cannot be decrypted: {problem}",
        remedy="it is encrypted for other keys, or was damaged since: use the age key of that time, or another copy",
    )


_OTHER_KEYS = {
    "AGE-SECRET-KEY-PQ-1": "a post-quantum key (age-keygen -pq)",
    "AGE-PLUGIN-": "the key of an age plugin",
    "-----BEGIN": "an SSH or PGP key",
}


def _identity(line: str, name: str, number: int) -> Identity:
    if other := next((other for start, other in _OTHER_KEYS.items() if line.upper().startswith(start)), ""):
        raise Rejected(
            f"{name}: key {number} is {other}",
            system="age",
            cause="fluobook gives Argo CD an X25519 key, and can read no other kind",
            remedy="generate one with `age-keygen` (AGE-SECRET-KEY-1…) and name its recipient in .sops.yaml",
            facts={"file": name},
        )
    try:
        key = pyrage.x25519.Identity.from_str(line)
    except Exception:  # noqa: BLE001  pyrage's own errors may quote the key
        key = None
    if key is None:
        raise Rejected(f"{name}: key {number} is not an age key", system="age", facts={"file": name})
    return Identity(str(key.to_public()), str(key))
