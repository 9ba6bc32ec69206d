"""The head of the HTML report says what happened, when, and what failed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from fluobook.errors import BadFile
from fluobook.redact import Redactor
from fluobook.run.report import write_report

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with one stage that failed."""
    stage: dict[str, Any] = {"stage": "create-vms", "notebook": "01_create_vms.ipynb", "status": "failed"}
    stage |= {"actions": 1, "checks": 0, "total": 0, "seconds": 1.5, "exit_code": 1}
    stage |= {"error": "\x1b[31mTaskFailed\x1b[39m: no room on <local-lvm>, the token is hunter2-hunter2"}
    summary = {"phase": "phase1", "target": "lab", "exit_code": 1, "stages": [stage]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    started = {"at": "2026-11-23T20:26:20.123+00:00", "event": "run-started"}
    (tmp_path / "events.jsonl").write_text(json.dumps(started) + "\n")
    cells = [nbformat.v4.new_markdown_cell("# 1 · Create the virtual machines")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / stage["notebook"])
    return tmp_path


def written(run: Path, *secrets: str) -> str:
    redactor = Redactor()
    redactor.add(*secrets)
    return write_report(run, redactor).read_text()


def test_the_head_says_when_the_run_began_how_long_it_took_and_how_it_ended(run: Path) -> None:
    assert "began 2026-11-23 20:26:20 UTC, 1.5 s in all, exit code 1" in written(run)


def test_the_head_says_for_each_chart_whether_it_was_real_or_a_stand_in(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    real = {"chart": "cilium", "version": "1.20.2", "used": "real", "digest": "abc"}
    lacking = {"repository": "https://git.example.org/x", "version": "v1", "used": "stand-in", "cause": "no tag"}
    for charts, sources in (("stand-ins", [lacking]), ("/srv/charts", [real, lacking])):
        (run / "summary.json").write_text(json.dumps({**summary, "charts": charts, "sources": sources}))
        head = re.sub(r"<[^>]+>", " ", written(run).partition("<section")[0].replace("<wbr>", ""))
        assert ("charts: the lab's stand-ins" in head) == (charts == "stand-ins")
        assert ("charts from /srv/charts" in head) == (charts == "/srv/charts")
    words = " ".join(head.split())
    assert "real cilium 1.20.2 abc" in words
    assert "stand-in https://git.example.org/x v1 no tag" in words


def test_an_error_stands_at_the_head_as_plain_text(run: Path) -> None:
    head = written(run).partition("<section")[0]
    assert "<pre>TaskFailed: no room on &lt;local-lvm&gt;" in head


def test_a_secret_in_an_error_is_masked(run: Path) -> None:
    assert "hunter2" not in written(run, "hunter2-hunter2")


def test_a_stage_is_linked_to_its_notebook(run: Path) -> None:
    page = written(run)
    assert '<a href="#01_create_vms">create-vms</a>' in page
    assert '<section id="01_create_vms">' in page


def test_a_run_without_a_journal_still_has_a_report(run: Path) -> None:
    (run / "events.jsonl").unlink()
    assert '<p class="fluobook-note">1.5 s in all, exit code 1' in written(run)


def changed(run: Path, **stage: Any) -> Path:
    """The run, with other values in the summary of its stage."""
    summary = json.loads((run / "summary.json").read_text())
    summary["stages"][0] |= stage
    (run / "summary.json").write_text(json.dumps(summary))
    return run


@pytest.mark.parametrize(
    "notebook",
    ["../secret.ipynb", "/etc/passwd", "../../../../etc/passwd", "a/../../secret.ipynb", "link.ipynb", "", "."],
)
def test_nothing_outside_the_run_folder_is_read(run: Path, notebook: str) -> None:
    cells = [nbformat.v4.new_markdown_cell("outside-the-run root:x:0")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), run.parent / "secret.ipynb")
    (run / "link.ipynb").symlink_to(run.parent / "secret.ipynb")
    page = written(changed(run, notebook=notebook))
    assert "outside-the-run" not in page
    assert "root:x:0" not in page
    assert "The notebook of create-vms cannot be shown" in page


@pytest.mark.parametrize("name", ["summary.json", "events.jsonl"])
def test_a_link_in_place_of_a_record_is_not_followed(run: Path, name: str) -> None:
    (run / name).rename(run.parent / name)
    (run / name).symlink_to(run.parent / name)
    if name == "events.jsonl":
        assert "began" not in written(run).partition("</p>")[0]
    else:
        with pytest.raises(BadFile, match=r"summary\.json is a symbolic link"):
            written(run)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"cells": 5}', '{"cells": [{}], "metadata": {}, "nbformat": 4}', "\0", "[" * 9000],
)
def test_a_damaged_notebook_is_named_and_the_rest_is_shown(run: Path, content: str) -> None:
    (run / "01_create_vms.ipynb").write_text(content)
    page = written(run)
    assert "The notebook of create-vms cannot be shown" in page
    assert "exit code 1" in page


def test_a_wrong_type_in_a_summary_is_named_with_its_field(run: Path) -> None:
    (run / "events.jsonl").unlink()
    with pytest.raises(BadFile, match=r"is not the summary of a run: stages\.0\.seconds is 'long'"):
        written(changed(run, seconds="long"))


def test_a_fifo_in_place_of_a_notebook_does_not_block(run: Path) -> None:
    (run / "01_create_vms.ipynb").unlink()
    os.mkfifo(run / "01_create_vms.ipynb")
    assert "cannot be shown: it is not a regular file" in written(run)


@pytest.mark.parametrize(
    "summary",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"stages": 5}',
        "[" * 9000,
        '{"phase": 1, "target": 2, "exit_code": "x", "stages": [1]}',
    ],
)
def test_a_damaged_summary_is_one_error_unless_the_journal_says_what_happened(run: Path, summary: str) -> None:
    (run / "summary.json").write_text(summary)
    with pytest.raises(BadFile, match=r"summary\.json.* is n"):
        written(run)
    lines = [
        {"at": "2026-11-23T20:26:20.123+00:00", "event": "run-started", "phase": "phase1", "target": "lab"}
        | {"stages": ["preflight", "create-vms", "observe"]},
        {"event": "notebook-started", "stage": "preflight", "notebook": "00_preflight.ipynb"},
        {"event": "verified", "stage": "preflight", "checks": [{"passed": True}, 5, {"passed": False}]},
        {"event": "notebook-ended", "stage": "preflight", "status": "done", "seconds": 2.5, "error": ""},
        {"event": "notebook-started", "stage": "create-vms", "notebook": "01_create_vms.ipynb"},
        {"event": "outcome", "stage": "create-vms"},
        {"event": 5, "stage": []},
        {"event": "verified", "stage": ["create-vms"], "checks": 5},
    ]
    (run / "events.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\nnull\n{torn")
    head = re.sub("<[^>]+>", " ", written(run).partition("<section")[0])
    assert re.search(r"✓ done\s+preflight\s+0\s+1 of 3\s+2\.5 s", head)
    assert re.search(r"✗ interrupted\s+create-vms", head)
    assert re.search(r"· not run\s+observe", head)


@pytest.mark.parametrize(
    "stage",
    [
        *({"actions": value} for value in ("many", -5, 1.5)),
        *({"seconds": value} for value in (None, -1, float("inf"), float("nan"))),
        *({"status": value} for value in ([], "great", "DONE")),
        *({"error": {"a": 1}}, {"checks": -1}, {"exit_code": -1}),
    ],
)
def test_a_summary_with_values_that_no_run_writes_is_refused(run: Path, stage: dict[str, Any]) -> None:
    with pytest.raises(BadFile, match=r"is not the summary of a run|is no number"):
        written(changed(run, **stage))


@pytest.mark.parametrize("seconds", ["Infinity", "1e400", "NaN", "-1"])
def test_an_event_with_a_time_that_no_action_takes_is_none(run: Path, seconds: str) -> None:
    (run / "summary.json").unlink()
    ended = json.dumps(ENDED | {"seconds": 0}).replace('"seconds": 0', f'"seconds": {seconds}')
    (run / "events.jsonl").write_text(f"{json.dumps(STARTED)}\n{ended}\n")
    assert "0.0 s in all" in written(run)


@pytest.mark.parametrize(
    ("name", "content", "damage"),
    [
        ("events.jsonl", None, "events.jsonl cannot be read: No such file or directory"),
        ("events.jsonl", "", "events.jsonl is empty"),
        ("events.jsonl", json.dumps({"event": "a"}) + "\n{torn\n[]\n", "events.jsonl has 2 lines without an event"),
        ("summary.json", "{torn", "summary.json is not JSON"),
        ("summary.json", '{"phase": "phase1"}', "summary.json is not the summary of a run: target is missing"),
    ],
)
def test_a_damaged_record_is_named_in_the_report(run: Path, name: str, content: str | None, damage: str) -> None:
    (run / "events.jsonl").write_text(f"{json.dumps(STARTED)}\n{json.dumps(ENDED)}\n")
    assert "is damaged" not in written(run)
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_text(content)
    assert f"The record is damaged: {damage}" in written(run)


def test_a_folder_in_place_of_the_report_is_to_be_moved_away(run: Path) -> None:
    (run / "report.html").mkdir()
    with pytest.raises(BadFile, match=r"report\.html cannot be written: Is a directory") as refused:
        written(run)
    assert refused.value.remedy == "move it away"


def test_text_of_a_summary_is_escaped(run: Path) -> None:
    page = written(changed(run, stage="<script>x</script>", notebook="<script>y</script>", error="<b>"))
    assert "<script>" not in page.partition("<section")[0]
    assert "<b>" not in page


def test_what_a_killed_run_left_half_written_is_removed(run: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (run / f".summary.json.{ended.pid}").touch()
    written(run)
    assert not list(run.glob(".*"))


STARTED = {"event": "run-started", "phase": "phase1", "target": "lab", "stages": ["create-vms"]}
ENDED = {"event": "notebook-ended", "stage": "create-vms", "status": "done", "seconds": 2.5}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([STARTED, ENDED | {"seconds": "long"}], "exit code 1"),
        ([STARTED, ENDED, {"event": "run-ended", "exit_code": "zero"}], "2.5 s in all, exit code 1"),
        ([STARTED, ENDED, {"event": "run-ended"}], "2.5 s in all, exit code 1"),
        ([STARTED, ENDED | {"seconds": None}], "0.0 s in all, exit code 1"),
        *(
            ([first, ENDED], "")
            for first in (ENDED, *(STARTED | {"stages": stages} for stages in (None, 5, [1], [["x"]])))
        ),
    ],
)
def test_without_a_summary_an_altered_journal_has_a_report_or_is_named(
    run: Path, lines: list[dict[str, Any]], expected: str
) -> None:
    (run / "summary.json").unlink()
    (run / "events.jsonl").write_text("\n".join(map(json.dumps, lines)))
    if expected:
        assert expected in written(run)
    else:
        with pytest.raises(BadFile, match=r"events\.jsonl has no line that says how the run began"):
            written(run)


@pytest.mark.parametrize(
    "data",
    [
        {"application/json": {"share": float("nan")}},
        {"text/vnd.mermaid": "flowchart LR"},  # the record of a run by hand has diagrams
    ],
    ids=["a number that JSON does not have", "a diagram that only JupyterLab draws"],
)
def test_an_output_with_other_types_is_shown_as_its_text(run: Path, data: dict[str, Any]) -> None:
    path = run / "01_create_vms.ipynb"
    notebook = nbformat.read(path, as_version=4)
    output = nbformat.v4.new_output("display_data", data=data | {"text/plain": "0 of 7"})
    notebook.cells.append(nbformat.v4.new_code_cell("1", outputs=[output]))
    nbformat.write(notebook, path)
    assert "0 of 7" in written(run)


def test_half_a_surrogate_pair_is_refused(run: Path) -> None:
    notebook = run / "01_create_vms.ipynb"
    notebook.write_text(notebook.read_text().replace("Create", "\\ud800"))
    assert "cannot be shown: it is not JSON: surrogates not allowed" in written(run)
    (run / "events.jsonl").unlink()
    (run / "summary.json").write_text((run / "summary.json").read_text().replace("phase1", "\\uD800"))
    with pytest.raises(BadFile, match=r"summary\.json is not JSON: surrogates"):
        written(run)


def test_nothing_in_a_notebook_runs_or_loads_a_file(run: Path) -> None:
    assert "Content-Security-Policy\" content=\"default-src 'none';" in written(run).partition("<title>")[0]


def test_a_notebook_with_very_many_colours_is_not_shown(run: Path) -> None:
    output = nbformat.v4.new_output("stream", text="\x1b[31m" * 200_000)
    cells = [nbformat.v4.new_code_cell("1", outputs=[output])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), run / "01_create_vms.ipynb")
    assert "cannot be shown: it has more than 5000 escape characters" in written(run)


def test_a_notebook_is_shown_once_and_only_if_its_text_is_short(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "stages": summary["stages"] * 3}))
    assert written(run).count("<section") == 1
    cells = [nbformat.v4.new_markdown_cell("[" * 20_000)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), run / "01_create_vms.ipynb")
    assert "cannot be shown: it has more than 10000 characters of text" in written(run)


def test_the_report_says_where_the_run_came_from_what_took_how_long_and_what_was_verified(run: Path) -> None:
    facts = {"phase": "phase1", "target": "lab", "stages": ["create-vms"], "cluster": "fluodata", "commit": "0a1b2c"}
    facts |= {"versions": {"talos": "1.13.9"}, "person": "ada", "host": "desk", "params": "cec3be"}
    stage = {"stage": "create-vms"}
    vm = stage | {"action": "create a"}
    application = stage | {"action": "await loki"}
    checks = [{"check": "every VM runs", "passed": True, "result": "3 of 3 <b>"}, {"check": "alerts", "passed": False}]
    lines = [
        {"event": "run-started", **facts},
        {"event": "approved", **stage, "digest": "34fb3d", "form": "typed yes", "person": "ada"},
        {"event": "intent", **vm, "verb": "create", "object": "vm a"},
        {"event": "intent", **application, "verb": "await", "object": "application loki"},
        {"event": "outcome", **vm, "result": "failed", "error": "no room"},
        {"event": "outcome", **application, "result": "done", "evidence": {"wave": 7}},
        {"event": "verified", **stage, "ok": True, "checks": checks},
    ]
    times = [f"2026-11-23T20:26:{second}.000+00:00" for second in range(20, 27)]
    stamped = [{"at": at, **line} for at, line in zip(times, lines, strict=True)]
    (run / "events.jsonl").write_text("\n".join(map(json.dumps, stamped)))
    head = written(run).partition("<section")[0]
    words = " ".join(re.sub(r"<style>[^<]*</style>|<[^>]+>", " ", head).split())
    for expected in (
        "cluster fluodata versions talos 1.13.9 commit 0a1b2c params cec3be run by ada@desk",
        "34fb3d typed yes by ada",
        "✗ create vm a 2.0 s",
        "waves wave took Applications, with the time that each took 7 2.0 s loki 2.0 s",
        "✓ create-vms every VM runs 3 of 3 &lt;b&gt;",
        "… create-vms alerts",
    ):
        assert expected in words


@pytest.mark.parametrize(
    ("error", "known"),
    [
        ("Conflict: etcd runs\n  failure: F28 etcd was bootstrapped before\n  remedy: go on", "F28 "),
        ("TaskFailed: can't lock file '/var/lock/qemu-server/lock-101.conf' - got timeout", "F07 "),
        ("nothing that anybody knows", ""),
    ],
)
def test_a_failure_is_shown_with_its_entry_of_the_catalogue(run: Path, error: str, known: str) -> None:
    head = written(changed(run, error=error)).partition("<section")[0]
    entry = head.partition("known failure:</p><pre>")[2]
    assert entry.startswith(known) if known else not entry


def test_notebooks_are_folded_unless_their_stage_failed(run: Path) -> None:
    assert "<details open><summary>create-vms: 01_create_vms.ipynb" in written(run)
    assert "<details><summary>create-vms: 01_create_vms.ipynb" in written(changed(run, status="done"))


@pytest.mark.parametrize("value", [5, None, [], {}, ["x"], {"a": {}}, "x" * 9000])
def test_no_value_of_an_altered_journal_keeps_the_report_from_being_written(run: Path, value: Any) -> None:
    event = {"at": "2026-11-23T20:26:20.123+00:00", "stage": "create-vms", "action": "a", "verb": "await", "ok": True}
    fields = ("at", "stage", "action", "verb", "object", "result", "evidence", "needs", "checks", "digest", "form")
    fields += ("person", "host", "versions", "commit", "params", "cluster")
    kinds = ("run-started", "approved", "intent", "outcome", "verified", "notebook-ended")
    odd = [{**event, "event": kind, name: value} for kind in kinds for name in fields]
    whole = [{**event, "event": kind, "evidence": {"wave": value}, "checks": [{"check": value}]} for kind in kinds]
    (run / "events.jsonl").write_text("\n".join(map(json.dumps, [*odd, *whole])))
    page = written(run)
    assert "exit code 1" in page
    assert "x" * 600 not in page
