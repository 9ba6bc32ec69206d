"""The gate in JupyterLab: a plan with buttons that work while its cell runs.

The cell that asks keeps the kernel's main shell busy; a subshell receives the clicks. Where no page shows widgets (a
terminal, another editor), `ask` returns None, and a prompt asks.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

from fluobook.display.kernel import bundle, current_kernel, record_display, update_display, widget_bundle
from fluobook.display.subshell import answers_while_busy
from fluobook.display.table import Cell, Table

Logs = Mapping[str, Callable[[], Sequence[str]]]
"""What reads the tail of a log, by the name of its action."""


class Place:
    """Where a cell shows a gate, and afterwards what it approved: in every page, also one that was loaded meanwhile."""

    def __init__(self, content: Any, plain: Table) -> None:
        import ipywidgets as widgets  # noqa: PLC0415 (heavy, and only a kernel needs it)
        from IPython.display import display  # noqa: PLC0415

        self._content, self._log = widgets.HTML(), _Log()
        self._box = widgets.VBox([content])
        self._id, self._shown = uuid4().hex, True
        display(widget_bundle(self._box, plain), raw=True, display_id=self._id)

    def on_close(self, call: Callable[[], None]) -> None:
        """Call this if a page answers that it cannot show widgets."""
        self._box.comm.on_close(lambda _message: call())

    def offer(self, logs: Callable[[], Logs]) -> None:
        """Let a person read the log of an action that runs."""
        self._log.logs = logs

    def put(self, content: Any, table: Table) -> None:
        """Show a widget that changes, and the logs that are offered; the record of the run has the table instead."""
        self._log.update()
        self._box.children = [content, self._log.box]
        data = widget_bundle(self._box, table)
        if self._shown:
            record_display(data, self._id)
        else:
            self._shown = True
            update_display(data, self._id)

    def update(self, table: Table) -> None:
        """Show a table that changes."""
        self._content.value = table.html()
        self.put(self._content, table)

    def finish(self, table: Table) -> None:
        """Show a table that stays; it replaces the widgets in the notebook."""
        self._content.value = table.html()
        self._box.children = [self._content]
        self._shown = False
        update_display(bundle(table), self._id)


class _Log:
    """A choice of the actions that run, and a button that reads the tail of the chosen one's log."""

    def __init__(self) -> None:
        import ipywidgets as widgets  # noqa: PLC0415 (heavy, and only a kernel needs it)

        self.logs: Callable[[], Logs] = dict
        self._choice = widgets.Dropdown(options=[], layout=widgets.Layout(width="22em", max_width="100%"))
        button = widgets.Button(description="Show its log", layout=widgets.Layout(width="auto"))
        self._text = widgets.HTML()
        button.on_click(lambda _button: self._read())
        row = widgets.HBox([self._choice, button], layout=widgets.Layout(flex_flow="row wrap"))
        self.box = widgets.VBox([row, self._text])

    def update(self) -> None:
        """Offer the actions that run now."""
        names = tuple(self.logs())
        if names != self._choice.options:
            chosen = self._choice.value  # new options choose none of them
            self._choice.options = names
            if names:
                self._choice.value = chosen if chosen in names else names[0]
        self.box.layout.display = "" if names else "none"

    def _read(self) -> None:
        name = self._choice.value
        lines = self.logs()[name]() if name in self.logs() else ["it has ended"]
        text = html.escape("\n".join([f"{name}:", *lines]))
        self._text.value = f'<pre style="white-space:pre-wrap;line-height:1.3">{text}</pre>'


def ask(
    plan: Table, *, names: Sequence[str], destroyed: Sequence[str], accepts: Callable[[str], bool]
) -> tuple[str, Place] | None:
    """Show a plan with the buttons Approve and Reject, and wait for a click.

    Args:
        plan: the plan; its note has a line for each name that is destroyed, what a person should know, and the summary.
        names: what has to be typed to approve it; nothing where a click is enough.
        destroyed: the names of what will be destroyed.
        accepts: whether what was typed approves the plan.

    Returns:
        What was typed, or "yes" where nothing has to be, or nothing after Reject; and where the gate was shown, for
        what follows. None if no page can show the buttons.
    """
    if not answers_while_busy(current_kernel()):
        return None
    answers: SimpleQueue[str | None] = SimpleQueue()
    place = Place(_widgets(plan, names, destroyed, accepts, answers.put), plan)
    place.on_close(lambda: answers.put(None))
    try:
        text = answers.get()
    except BaseException:
        place.finish(Table(f"{plan.title}: not decided; nothing was changed", []))
        raise
    if text:
        place.finish(Table(f"{plan.title}: approved", []))
    else:
        outcome = "this page shows no buttons" if text is None else "rejected; nothing was changed"
        place.finish(Table(f"{plan.title}: {outcome}", []))
    return None if text is None else (text, place)


def _widgets(
    plan: Table,
    names: Sequence[str],
    destroyed: Sequence[str],
    accepts: Callable[[str], bool],
    decide: Callable[[str], None],
) -> Any:
    """The widgets of a gate; `decide` receives what was typed, "yes", or nothing after Reject."""
    import ipywidgets as widgets  # noqa: PLC0415 (heavy, and only a kernel needs it)

    request = f"To approve, type: {' '.join(names)}"
    loss = Table("WILL BE DESTROYED", ["name"], [[Cell(name, "destroy")] for name in destroyed]).html()
    rows = replace(plan, note="").html()
    folded = f"<details><summary>{html.escape(plan.title)}: {len(plan.rows)} actions</summary>{rows}</details>"
    *notes, summary = plan.note.splitlines()
    known = [f"<div>{html.escape(note)}</div>" for note in notes[len(destroyed) :]]
    parts = [f"<strong>{html.escape(summary)}</strong>", loss if destroyed else "", "".join(known), folded]
    auto, wide = widgets.Layout(width="auto"), widgets.Layout(width="22em", max_width="100%")
    typed = widgets.Text(placeholder=" ".join(names), layout=wide, continuous_update=False)
    approve = widgets.Button(description="Approve", button_style="danger" if destroyed else "primary", layout=auto)
    reject = widgets.Button(description="Reject", layout=auto)
    hint = widgets.HTML(html.escape(request) if names else "")

    def answer(_button: Any) -> None:
        text = typed.value if names else "yes"
        if accepts(text):
            decide(text)
        else:
            hint.value = f"<strong>{html.escape(f'{text!r} does not match. {request}')}</strong>"

    approve.on_click(answer)
    reject.on_click(lambda _button: decide(""))
    row = widgets.HBox([*([typed] if names else []), approve, reject], layout=widgets.Layout(flex_flow="row wrap"))
    return widgets.VBox([*(widgets.HTML(part) for part in parts if part), hint, row])
