"""The outputs that a kernel keeps: what its messages leave, and which of them a notebook lacks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

from fluobook.display.outputs import FOLDER, VIEW, Outputs, restore
from fluobook.waiting import Cancellation, wait_until

IDLE = ("status", {"execution_state": "idle"})
TABLE = {"data": {"text/plain": "0 of 7"}, "metadata": {}, "transient": {"display_id": "a"}}
DONE = {"data": {"text/plain": "7 of 7"}, "metadata": {}, "transient": {"display_id": "a"}}


def kept(folder: Path, *messages: tuple[str, dict[str, Any]], request: str = "r1", cell: str = "c1") -> Any:
    """What the file contains after these messages of one execution."""
    path = folder / FOLDER / "01_create_vms.json"
    outputs = Outputs(path, clock=lambda: 1000.0)
    for kind, content in messages:
        outputs.receive(kind, content, request=request, cell=cell, count=3)
    return json.loads(path.read_text()) if path.exists() else None


@pytest.mark.parametrize(
    ("messages", "outputs"),
    [
        ([], []),
        ([("display_data", TABLE)], [{"output_type": "display_data", "data": TABLE["data"], "metadata": {}}]),
        (
            [("display_data", TABLE), ("update_display_data", DONE)],
            [{"output_type": "display_data", "data": DONE["data"], "metadata": {}}],
        ),
        (
            [("stream", {"name": "stdout", "text": "a"}), ("stream", {"name": "stdout", "text": "b"})],
            [{"output_type": "stream", "name": "stdout", "text": "ab"}],
        ),
        (
            [("error", {"ename": "E", "evalue": "v", "traceback": ["t"]})],
            [{"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}],
        ),
        ([("update_display_data", DONE)], []),
        ([("comm_msg", {"data": {}}), ("execute_reply", {"status": "ok"})], []),
    ],
)
def test_messages_leave_what_a_page_would_show(tmp_path: Path, messages: Any, outputs: Any) -> None:
    cells = kept(tmp_path, *messages, IDLE)
    assert cells == {"c1": {"execution_count": 3, "outputs": outputs, "changed": 1000.0, "pid": os.getpid()}}


def test_a_display_is_updated_after_its_cell_and_by_another_thread(tmp_path: Path) -> None:
    path = tmp_path / FOLDER / "index.json"
    seconds = iter(range(1000, 1100, 2))
    outputs = Outputs(path, clock=lambda: float(next(seconds)))
    outputs.receive("display_data", TABLE, request="r1", cell="c1", count=1)
    outputs.receive(*IDLE, request="r1", cell="c1", count=1)
    outputs.receive("update_display_data", DONE, request="r1", cell="", count=2)
    assert json.loads(path.read_text())["c1"]["outputs"][0]["data"] == DONE["data"]


def test_what_a_cell_shows_before_it_waits_is_written_although_nothing_follows(tmp_path: Path) -> None:
    path = tmp_path / FOLDER / "01_create_vms.json"
    outputs = Outputs(path, clock=lambda: 1000.0)
    for text in ("a", "b"):
        outputs.receive("stream", {"name": "stdout", "text": text}, request="r1", cell="c1", count=3)
    wait_until(
        lambda: '"text": "ab"' in path.read_text() or None, what="both", timeout=200, cancellation=Cancellation()
    )


def test_a_message_of_no_cell_is_not_kept(tmp_path: Path) -> None:
    assert kept(tmp_path, ("stream", {"name": "stdout", "text": "a"}), IDLE, cell="") is None


SAVED, LATER = 2000.0, 3000.0
OUTPUT = {"output_type": "stream", "name": "stdout", "text": "7 of 7"}


@pytest.mark.parametrize(
    ("count", "saved", "changed", "restored"),
    [
        (None, [], LATER, True),  # the page was closed before it saved anything
        (3, [], SAVED - 1, True),  # the page was loaded again and saved what it had
        (None, [], SAVED - 1, False),  # a person has cleared the cell since
        (4, [], SAVED - 1, False),  # a person has run it again since
        (3, [OUTPUT], LATER, False),  # nothing is missing
    ],
)
def test_a_notebook_gets_what_no_page_has_saved(
    tmp_path: Path, count: int | None, saved: Any, changed: float, restored: bool
) -> None:
    path = tmp_path / "01_create_vms.ipynb"
    cell = nbformat.v4.new_code_cell(
        "stage.apply(plan)", id="c1", execution_count=count, outputs=nbformat.from_dict(saved)
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("Apply"), cell]), path)
    os.utime(path, (SAVED, SAVED))
    (tmp_path / FOLDER).mkdir()
    record = {"c1": {"execution_count": 3, "outputs": [OUTPUT], "changed": changed}}
    (tmp_path / FOLDER / "01_create_vms.json").write_text(json.dumps(record))
    notebook = nbformat.read(path, as_version=4)
    before = notebook.cells[1].outputs
    assert restore(notebook, path) == restored
    assert notebook.cells[1].outputs == ([OUTPUT] if restored else before)
    trusted = notebook.cells[1].metadata.get("trusted", False)
    assert trusted == (notebook.cells[1].outputs == [OUTPUT]), "what the kernel has shown keeps its style in a page"


VIEWED = {"data": {VIEW: {"model_id": "m"}, "text/plain": "7 of 7"}, "metadata": {}, "output_type": "display_data"}


@pytest.mark.parametrize(
    ("lives", "recorded", "shown"),
    [
        (True, VIEWED, [VIEW, "text/plain"]),  # the gate is open: a page that is loaded now shows it
        (False, VIEWED, ["text/plain"]),  # nothing answers a click any more
        (True, TABLE, ["text/plain"]),  # another page has saved its widget, the kernel has gone on
    ],
)
def test_a_widget_is_restored_only_while_its_kernel_lives(
    tmp_path: Path, lives: bool, recorded: dict[str, Any], shown: list[str]
) -> None:
    path = tmp_path / "01_create_vms.ipynb"
    cell = nbformat.v4.new_code_cell("stage.apply(plan)", id="c1", outputs=[nbformat.from_dict(VIEWED)])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    (tmp_path / FOLDER).mkdir()
    outputs = [{"output_type": "display_data", "data": recorded["data"], "metadata": {}}]
    record = {"c1": {"execution_count": 3, "outputs": outputs, "changed": 0.0, "pid": os.getpid() if lives else 0}}
    (tmp_path / FOLDER / "01_create_vms.json").write_text(json.dumps(record))
    notebook = nbformat.read(path, as_version=4)
    restore(notebook, path)
    assert sorted(notebook.cells[0].outputs[0].data) == shown


@pytest.mark.parametrize(
    "content",
    ["", "{torn", "[]", '{"c1": []}', '{"c1": {"outputs": 5}}', '{"c1": {"outputs": [5]}}', '{"c1": {"pid": "x"}}'],
)
def test_a_damaged_record_of_outputs_changes_no_notebook(tmp_path: Path, content: str) -> None:
    path = tmp_path / "01_create_vms.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", id="c1")]), path)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "01_create_vms.json").write_text(content)
    notebook = nbformat.read(path, as_version=4)
    assert not restore(notebook, path)
    assert notebook.cells[0].outputs == []


def test_a_notebook_without_a_kernel_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "11_check.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), path)
    assert not restore(nbformat.read(path, as_version=4), path)
