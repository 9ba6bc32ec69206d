"""A table that reads well as text (papermill, nbval, terminals) and as HTML (JupyterLab, the report).

No widget and no own colours: text and borders take JupyterLab's theme variables, so the dark theme works, and a state
is always shown by a glyph and a word, never by colour alone.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

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
        columns: the heads.
        rows: a sequence of cells for each row; a cell is a `Cell` or whatever `str` understands.
        note: text below the rows: a summary, or what to do next.
        limit: rows beyond this number are counted, not shown.
        bar: how much is done, from 0 to 1; a bar above the rows shows it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]] = field(default_factory=tuple)
    note: str = ""
    limit: int = 100
    bar: float | None = None

    def __repr__(self) -> str:
        return self.text()

    def table(self) -> Table:
        """Itself."""
        return self

    def text(self) -> str:
        """The table in plain text, columns aligned."""
        shown = [[str(cell) for cell in row] for row in self.rows[: self.limit]]
        grid = [list(self.columns), *shown] if shown else []
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.columns))] if grid else []
        body = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in grid]
        return "\n".join(line for line in [self.title, *body, self._more(), self.note] if line)

    def html(self) -> str:
        """The table in HTML, everything escaped."""
        head = "".join(f'<th scope="col">{html.escape(str(column))}</th>' for column in self.columns)
        body = "".join(_row(row) for row in self.rows[: self.limit])
        note = "<br>".join(
            html.escape(line) for text in (self._more(), self.note) if text for line in text.splitlines()
        )
        rows = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>" if self.rows else ""
        title = html.escape(self.title)
        if self.bar is not None:
            title += f'<progress value="{self.bar:.3f}" aria-label="{title}"></progress>'
        table = f'{STYLE}<table class="fluobook"><caption>{title}</caption>{rows}</table>'
        return table + (f'<p class="fluobook-note">{note}</p>' if note else "")

    def _more(self) -> str:
        hidden = len(self.rows) - self.limit
        return f"+ {hidden} more" if hidden > 0 else ""


def _row(row: Iterable[Any]) -> str:
    return f"<tr>{''.join(_cell(cell) for cell in row)}</tr>"


def _cell(cell: Any) -> str:
    text = html.escape(str(cell))
    tone = (_CLASS.get(cell.tone) if isinstance(cell, Cell) else "") or ("short" if 0 < len(str(cell)) <= SHORT else "")
    if isinstance(cell, Cell) and cell.link:
        text = f'<a href="{html.escape(cell.link)}">{text}</a>'
    return f'<td class="{tone}">{text}</td>' if tone else f"<td>{text}</td>"
