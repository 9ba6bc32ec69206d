"""Takes every secret that was loaded out of whatever is shown, stored or raised.

A secret leaks in more forms than its own: as base64 inside a Secret or a kubeconfig, percent-encoded in a URL, escaped
in JSON. `Redactor` knows all of these for each value that it has learnt, longest first, so that a part never hides the
whole. SECURITY.md lists what it does not mask.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "‹redacted›"
SHORTEST = 6
"""Shorter values are not taken out: they would mask ordinary words, and no secret of ours is so short."""


def forms(value: str) -> set[str]:
    """The spellings in which one secret may appear: raw, line by line, base64 at any offset, URL and JSON."""
    text = value.strip()
    lines = {line.strip() for line in text.splitlines() if not line.startswith(("-----", "#"))}
    spellings = {value, text, *lines}
    for spelling in (value, text):
        spellings |= _base64(spelling.encode())
        spellings |= {quote(spelling, safe=""), quote_plus(spelling)}
        spellings |= {json.dumps(spelling)[1:-1], json.dumps(spelling, ensure_ascii=False)[1:-1]}
    return {form for form in spellings if len(form) >= SHORTEST}


def _base64(secret: bytes) -> set[str]:
    """A secret in base64, alone and as a part of something longer: three bytes make four letters, so thrice."""
    spellings = set()
    for offset in range(3):
        whole = base64.b64encode(b"\0" * offset + secret).decode()
        start = (offset * 4 + 2) // 3  # letters that hold bits of what stands before
        end = len(whole.rstrip("=")) - (1 if (offset + len(secret)) % 3 else 0)  # and of what stands behind
        spellings |= {part.translate(_URL_SAFE) for part in (whole[start:end], whole[start:])} | {whole[start:end]}
    return spellings | {base64.b64encode(secret).decode()}


_URL_SAFE = str.maketrans("+/", "-_")


class Redactor:
    """Knows secrets and masks them in text; shared by threads, so it only ever grows.

    It does not show what it knows, not even in its `repr`.
    """

    def __init__(self) -> None:
        self._forms: tuple[str, ...] = ()
        self._names: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return "Redactor(…)"

    def keep(self, *names: str) -> None:
        """Learn names of objects, keys and files: they stay readable, and a value that equals one is not learnt."""
        with self._lock:
            self._names |= {name for name in names if len(name) >= SHORTEST}

    def add(self, *values: str) -> None:
        """Learn secrets; each is masked in every form from now on."""
        new = set[str]().union(*(forms(value) for value in values if value.strip() not in self._names))
        with self._lock:
            self._forms = tuple(sorted(new | set(self._forms), key=len, reverse=True))

    def text(self, text: str) -> str:
        """The text with every known secret masked."""
        for form in self._forms:
            if form in text:
                names = sorted((name for name in self._names if form in name), key=len, reverse=True)
                whole_name = rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)|" if names else ""
                pattern = f"{whole_name}(?P<secret>{re.escape(form)})"
                text = re.sub(pattern, lambda match: MASK if match["secret"] else match[0], text)
        return text

    def data(self, value: Any) -> Any:
        """Plain data (dicts, lists, scalars) with every known secret masked, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.data(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(item) for item in value]
        return value

    def leaks(self, text: str) -> bool:
        """Whether any known secret is still in the text; for tests and for the last check before a file is kept."""
        return self.text(text) != text
