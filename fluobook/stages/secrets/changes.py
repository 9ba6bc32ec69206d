"""The changes that a notebook requests of the secrets in Git: keywords for keys, never values.

{"apps/secrets/mail": {"@type": "kubernetes.io/basic-auth", "username": "ask", "password": "random"}}
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook.errors import UsageError
from fluobook.gitops.secrets import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TOP = "cluster-gitops"
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
    return tuple(_change(_file(path), choices, ask) for path, choices in request.items())


def _file(path: str) -> str:
    bare = path.removeprefix(TOP + "/").removesuffix(SUFFIX).strip("/")
    if not re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)+", bare):
        raise UsageError(
            f"{path!r} cannot hold a secret",
            remedy=f'name folder and file below {TOP}, such as "apps/secrets/mail"',
        )
    return f"{TOP}/{bare}{SUFFIX}"


def _change(file: str, request: Mapping[str, str], ask: Callable[[str], str] | None) -> SecretChange:
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
    return SecretChange(file, choices, typed, request.get("@name", ""), request.get("@type", ""), new_data_key)


def _typed(file: str, key: str, ask: Callable[[str], str] | None) -> str:
    if ask is None:
        raise UsageError(
            f"{file}: nobody can be asked for {key} here",
            remedy='run the notebook in JupyterLab, or choose "random" to have the value generated',
        )
    if not (value := ask(f"{file} · {key}: ")):
        raise UsageError(f"{file}: nothing was typed for {key}", remedy="run the cell again")
    return value
