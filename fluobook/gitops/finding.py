"""What `fluobook check` says of the repository: a rule, a place, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong.

    `file` is relative to the repository, `line` counts from 1 (0 where the file as a whole is meant).
    """

    file: str
    line: int
    rule: str
    message: str
    remedy: str

    def line_of_text(self) -> str:
        """The finding on one line, for a terminal: place, rule, message, remedy."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: [{self.rule}] {self.message}; {self.remedy}"


@dataclass(frozen=True)
class Place:
    """A file of a repository and a line in it."""

    root: Path
    file: Path
    line: int = 0

    def finding(self, rule: str, message: str, remedy: str) -> Finding:
        """A finding at this place."""
        file = self.file.resolve()
        root = self.root.resolve()
        shown = file.relative_to(root) if file.is_relative_to(root) else file
        return Finding(str(shown), self.line, rule, message, remedy)
