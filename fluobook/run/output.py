"""Where papermill writes: every save of a notebook passes the redactor on its way to the disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from papermill.iorw import LocalHandler, papermill_io

from fluobook.journal.folder import write_text

if TYPE_CHECKING:
    from fluobook.redact import Redactor

SCHEME = "redacted://"


class RedactedFiles(LocalHandler):  # type: ignore[misc, unused-ignore]
    """A file handler that masks every secret known to this process."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def write(self, buf: str, path: str) -> None:
        """Write the notebook in one step, masked."""
        write_text(Path(path.removeprefix(SCHEME)), self._redactor.text(buf))

    def read(self, path: str) -> Any:
        """Read a notebook back."""
        return super().read(path.removeprefix(SCHEME))

    def pretty_path(self, path: str) -> str:
        """The path without the scheme."""
        return path.removeprefix(SCHEME)


def redacted(path: Path, redactor: Redactor) -> str:
    """The output path for papermill that leads through the redactor."""
    papermill_io.register(SCHEME, RedactedFiles(redactor))
    return f"{SCHEME}{path}"
