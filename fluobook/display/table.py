"""A table that reads well as text (papermill, nbval, terminals) and as HTML (JupyterLab, the report).

No own colours: text and borders take JupyterLab's theme variables, so the dark theme works, and a state
is always shown by a glyph and a word, never by colour alone.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any

from fluobook.errors import printable

if TYPE_CHECKING:
    from pandas import DataFrame

_LONG = re.compile(r"[^\s/]{16}(?=[^\s/]{8})|/(?=\S{8})")
"""Where a page may break a word, so that a key or a URL does not widen its column."""

SHORT = 12
"""Cells with no more characters stay on one line, so that a narrow page wraps the long ones."""

STYLE = f"<style>{resources.files(__package__).joinpath('table.css').read_text().rstrip()}</style>"
"""Tones are mixed with the colour of the text: alone, JupyterLab's are too pale on its light background to be read."""

GLYPHS = {"ok": "✓", "bad": "✗", "wait": "…", "add": "+", "change": "~", "destroy": "−", "same": "·"}
"""What stands before a cell of each tone."""

_CLASS = {"ok": "ok", "bad": "bad", "wait": "wait", "add": "ok", "change": "wait", "destroy": "bad", "same": ""}


@dataclass(frozen=True)
class Cell:
    """A text with a tone (a key of `GLYPHS`) and, in HTML, a link."""

    text: str
    tone: str = ""
    link: str = ""

    def __str__(self) -> str:
        return f"{GLYPHS[self.tone]} {self.text}".rstrip() if self.tone else self.text


class Displayed:
    """Is shown as its table: rich in a notebook, as text on a terminal."""

    def table(self) -> Table:
        """The table."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.table().text(), "text/html": self.table().html()}

    def __str__(self) -> str:
        return self.table().text()


@dataclass(frozen=True)
class Table(Displayed):
    """Rows below named columns, with a title above and a note below.

    Args:
        title: what the rows are.
        columns: the heads; rows without any have no head.
        rows: a sequence of cells for each row; a cell is a `Cell` or whatever `str` understands.
        note: text below the rows: a summary, or what to do next.
        limit: rows beyond this number are counted, not shown.
        bar: how much is done, from 0 to 1; a bar above the rows shows it.
        key: the columns that together name a row of a live table; without any, its position does.
        sort: the columns by which a live table is sorted at first; "-" before a name reverses.
        pickers: the columns with few different values, which a person may choose from.
        optional: the columns that a narrow page leaves out, the first of them first.
        details: the columns that only the details of a row show.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]] = field(default_factory=tuple)
    note: str = ""
    limit: int = 100
    bar: float | None = None
    key: Sequence[str] = ()
    sort: Sequence[str] = ()
    pickers: Sequence[str] = ()
    optional: Sequence[str] = ()
    details: Sequence[str] = ()

    def __repr__(self) -> str:
        return self.text()

    def table(self) -> Table:
        """Itself."""
        return self

    def text(self) -> str:
        """The table in plain text, columns aligned."""
        shown = [[_plain(row[i]) for i in self._shown] for row in self.rows[: self.limit]]
        head = [[self.columns[i] for i in self._shown]] if any(self.columns) else []
        grid = [*head, *shown] if shown else []
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        body = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in grid]
        return printable("\n".join(line for line in [self.title, *body, self._more(), self.note] if line))

    def html(self) -> str:
        """The table in HTML, everything escaped."""
        head = "".join(f'<th scope="col">{html.escape(self.columns[i])}</th>' for i in self._shown)
        body = "".join(_row(row[i] for i in self._shown) for row in self.rows[: self.limit])
        note = "<br>".join(
            html.escape(line) for text in (self._more(), self.note) if text for line in text.splitlines()
        )
        head = f"<thead><tr>{head}</tr></thead>" if any(self.columns) else ""
        rows = f"{head}<tbody>{body}</tbody>" if self.rows else ""
        title = html.escape(self.title)
        if self.bar is not None:
            title += f'<progress value="{self.bar:.3f}" aria-label="{title}"></progress>'
        table = f'{STYLE}<table class="fluobook"><caption>{title}</caption>{rows}</table>'
        return table + (f'<p class="fluobook-note">{note}</p>' if note else "")

    def to_frame(self) -> DataFrame:
        """All rows and columns as a pandas frame: numbers, times (UTC) and texts without their signs."""
        from pandas import DataFrame  # noqa: PLC0415 (heavy)

        rows = [[cell.text if isinstance(cell, Cell) else cell for cell in row] for row in self.rows]
        return DataFrame(rows, columns=list(self.columns)).convert_dtypes()

    @cached_property
    def _shown(self) -> list[int]:
        return [i for i, column in enumerate(self.columns) if column not in self.details]

    def _more(self) -> str:
        hidden = len(self.rows) - self.limit
        return f"+ {hidden} more" if hidden > 0 else ""


@dataclass(frozen=True)
class Picture:
    """A diagram in Mermaid's language, which JupyterLab draws; as text elsewhere.

    Args:
        text: the same for a terminal, the record and the report.
        mermaid: the diagram, or nothing while nobody watches.
    """

    text: str
    mermaid: str = ""

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.text} | ({"text/vnd.mermaid": self.mermaid} if self.mermaid else {})


def _plain(cell: Any) -> str:
    return f"{cell:%Y-%m-%d %H:%M:%S} UTC" if isinstance(cell, datetime) else "" if cell is None else str(cell)


def _row(row: Iterable[Any]) -> str:
    return f"<tr>{''.join(_cell(cell) for cell in row)}</tr>"


def _cell(cell: Any) -> str:
    plain = _plain(cell)
    text = _LONG.sub(r"\g<0>\0", plain)
    text = html.escape(text).replace("\0", "<wbr>")
    tone = tone_of(cell) or ("short" if 0 < len(plain) <= SHORT else "")
    if isinstance(cell, Cell) and cell.link:
        text = f'<a href="{html.escape(cell.link)}">{text}</a>'
    return f'<td class="{tone}">{text}</td>' if tone else f"<td>{text}</td>"


def tone_of(cell: Any) -> str:
    """The class of a cell in HTML, or nothing."""
    return _CLASS.get(cell.tone, "") if isinstance(cell, Cell) else ""
