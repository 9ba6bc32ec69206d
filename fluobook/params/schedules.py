"""Cron schedules, as Kubernetes reads them."""

from __future__ import annotations

import re
from typing import Any

_SCHEDULE = (range(60), range(24), range(1, 32), range(1, 13), range(7))
_DAYS_AND_MONTHS = "sun mon tue wed thu fri sat", " jan feb mar apr may jun jul aug sep oct nov dec"


def is_schedule(text: Any) -> bool:
    """Whether Kubernetes takes a text as a cron schedule."""
    if str(text).startswith("@"):
        words = r"yearly|annually|monthly|weekly|daily|midnight|hourly|every ([0-9.]+(ns|us|µs|ms|s|m|h))+"
        return bool(re.fullmatch(f"@({words})", text))
    fields = str(text).split()
    if len(fields) != len(_SCHEDULE):
        return False
    for field, allowed in zip(fields, _SCHEDULE, strict=True):
        for part in field.lower().split(","):
            span, _, step = part.partition("/")
            ends = [] if span in ("*", "?") else span.split("-", 1)
            numbers = [_number(end, allowed) for end in ends]
            is_step = "/" not in part or (step.isdigit() and int(step))
            if numbers != sorted(numbers) or not is_step or not all(number in allowed for number in numbers):
                return False
    return True


def _number(word: str, allowed: range) -> int:
    """A number, or the name of a day or month as its number; -1 for neither."""
    names = {7: _DAYS_AND_MONTHS[0].split(" "), 13: _DAYS_AND_MONTHS[1].split(" ")}.get(allowed.stop, [])
    return int(word) if word.isdigit() else names.index(word) if word and word in names else -1
