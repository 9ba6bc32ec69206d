"""The catalogue of known failures, as data: catalogue.yaml, checked when it is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Failure:
    """A known failure.

    Args:
        code: its number in the catalogue, such as "F07".
        title: what happened, in one line.
        symptoms: what its texts look like.
        systems: who says it ("proxmox", "talos"…); empty for anybody.
        codes: the system's own codes for it, such as "401"; they say less than a symptom.
        cause: why it happens.
        remedy: what helps.
        next: the next command; {name} is filled from the symptom.
    """

    code: str
    title: str
    symptoms: tuple[re.Pattern[str], ...]
    systems: frozenset[str]
    codes: frozenset[str]
    cause: str
    remedy: str
    next: str


@cache
def catalogue() -> tuple[Failure, ...]:
    """Every known failure, in the catalogue's order."""
    text = resources.files("fluobook.failures").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return tuple(_failure(code, entry) for code, entry in yaml.safe_load(text).items())


def _failure(code: str, entry: Mapping[str, Any]) -> Failure:
    return Failure(
        code=code,
        title=entry["title"],
        symptoms=tuple(re.compile(symptom, re.IGNORECASE) for symptom in entry["symptoms"]),
        systems=frozenset(entry.get("systems", ())),
        codes=frozenset(entry.get("codes", ())),
        cause=entry["cause"],
        remedy=entry["remedy"],
        next=entry["next"],
    )
