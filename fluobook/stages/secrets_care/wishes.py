"""What shall be set in which secret, as a notebook says it: words, never values.

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

WORDS = {
    "ask": "a person types it, unseen",
    "random": "made up, if there is none yet",
    "renew": "made up anew",
    "keep": "as it is: it is no secret, or is known to be safe",
    "remove": "taken out",
}
"""What may be said of a key."""

OPTIONS = {
    "@name": "the Secret's name, where it is not the file's",
    "@type": "the Secret's type, Opaque unless said",
    DATA_KEY: '"renew" encrypts the file anew, whatever else is in it',
}
"""What may be said of a file; no key of a Secret can have such a name."""

_KEY = re.compile(r"[-._a-zA-Z0-9]+")


@dataclass(frozen=True)
class Wish:
    """What shall be set in one file: `words` says it for each key, `asked` holds what a person typed."""

    file: str
    words: Mapping[str, str]
    asked: Mapping[str, str] = field(repr=False)
    name: str
    type: str
    new_data_key: bool


def parse(told: Mapping[str, Mapping[str, str]], ask: Callable[[str], str] | None = None) -> tuple[Wish, ...]:
    """The wishes in what a notebook says; asks for what has to be asked.

    Args:
        told: for each file, below cluster-gitops, with or without .sops.yaml: one of `WORDS` for each key; `OPTIONS`.
        ask: asks a person, without showing the answer; None where nobody can be asked.

    Raises:
        UsageError: a file, key or word is not understood; the error never shows what stood in the word's place.
    """
    return tuple(_wish(_file(place), told_of, ask) for place, told_of in told.items())


def _file(place: str) -> str:
    bare = place.removeprefix(TOP + "/").removesuffix(SUFFIX).strip("/")
    if not re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)+", bare):
        raise UsageError(
            f"{place!r} is no place for a secret",
            remedy=f'name folder and file below {TOP}, such as "apps/secrets/mail"',
        )
    return f"{TOP}/{bare}{SUFFIX}"


def _wish(file: str, told: Mapping[str, str], ask: Callable[[str], str] | None) -> Wish:
    words = {key: word for key, word in told.items() if not key.startswith("@")}
    for key, word in words.items():
        _understood(file, key, word)
    if unknown := sorted(key for key in told if key.startswith("@") and key not in OPTIONS):
        raise UsageError(f"{file}: {unknown[0]} is not understood", remedy=f"say one of {', '.join(OPTIONS)}")
    return Wish(
        file,
        words,
        {key: _asked(file, key, ask) for key, word in words.items() if word == "ask"},
        told.get("@name", ""),
        told.get("@type", ""),
        told.get(DATA_KEY) == "renew",
    )


def _understood(file: str, key: str, word: object) -> None:
    if not _KEY.fullmatch(key):
        raise UsageError(f"{file}: {key!r} cannot be a key of a Secret", remedy="use letters, digits, - . and _")
    if word not in WORDS:
        raise UsageError(
            f"{file}: what is said of {key} is not understood",
            cause="a value itself never stands in a notebook: it would be saved with it, in clear",
            remedy="say " + ", ".join(f"{known} ({meaning})" for known, meaning in WORDS.items()),
        )


def _asked(file: str, key: str, ask: Callable[[str], str] | None) -> str:
    if ask is None:
        raise UsageError(
            f"{file}: nobody can be asked for {key} here",
            remedy="run the notebook in JupyterLab, or say random and have the value made up",
        )
    if not (value := ask(f"{file} · {key}: ")):
        raise UsageError(f"{file}: nothing was typed for {key}", remedy="run the cell again")
    return value
