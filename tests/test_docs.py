"""The documentation says what is so: links, commands, make targets, faults, and pages drawn from the program."""

from __future__ import annotations

import importlib.util
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import nbformat
import pytest
import typer
from fluobook_lab.faults import FAULTS
from typer._click.exceptions import MissingParameter
from typer.core import TyperGroup

from fluobook import cli
from fluobook.stages import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

ROOT = Path(__file__).parents[1]
AWAY = {".venv", "runs", "build", ".git", "node_modules", ".pytest_cache", ".ipynb_checkpoints"}
PAGES = sorted(p for p in ROOT.rglob("*.md") if not AWAY & set(p.relative_to(ROOT).parts))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
STATUS = re.compile(r"^Status: (accepted|superseded by \[.+\]\(.+\))\. Date: \d{4}-\d{2}-\d{2}\.$", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SHELL = {"sh", "console", "bash", "shell"}
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
MAKE = re.compile(r"(?:^|\s)make ([a-z][a-z-]*)")
MACHINE = re.compile(r"(?<![\w/.])/(?:work|home/\w+|root|tmp/(?!with-three-workers))(?:/|\b)")
"""Paths of the machine on which something was written; one example in the how-to is meant so."""
NO_TARGETS = {"sure", "it"}
"""Words that follow "make" in prose."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(path: Path) -> str:
    """What a person reads in a page, or in the prose of a notebook."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def prose(path: Path) -> str:
    return FENCE.sub("", text_of(path))


def code_of(path: Path) -> str:
    """Everything on a page that somebody could type: blocks for a shell, and code between words."""
    blocks = [body for _, language, body in FENCE.findall(text_of(path)) if language in SHELL]
    return "\n".join([*blocks, *CODE.findall(prose(path))])


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in HEADING.findall(prose(path)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = [
        target for target in LINK.findall(prose(page)) if "://" not in target and not target.startswith("mailto:")
    ]
    broken = []
    for target in targets:
        name, _, anchor = unquote(target).partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def command_lines(page: Path) -> Iterator[str]:
    """Everything that begins with our program, continuations joined, without what the shell does around it."""
    code = re.sub(r"\\\n\s*", " ", code_of(page))
    for line in code.splitlines():
        bare = re.sub(r"(?:^|\s)#(?:\s.*)?$", "", line.strip().removeprefix("$ "))
        for part in re.split(r"\$\(|\)|&&|;|\||\s&(?:\s|$)|[<>]", bare):
            words = part.strip().strip('"').removeprefix(".venv/bin/")
            if re.match(r"fluobook(\s|$)", words):
                yield words


def parsed(line: str) -> None:
    """Let the real command line read the words; nothing is run. What is missing may be missing: prose quotes parts.

    Raises:
        Exception: the command or one of its options does not exist, or there is a word too many.
    """
    words = shlex.split(line.replace("…", ""))[1:]
    command: click.Command = typer.main.get_command(cli.app)
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
    if "--help" in words:
        return
    with suppress(MissingParameter):
        command.make_context("fluobook", list(words) or ["--help"], resilient_parsing=not words)


LINES = [(named(page), line) for page in [*PAGES, *NOTEBOOKS] for line in command_lines(page)]


@pytest.mark.parametrize(("page", "line"), LINES)
def test_every_command_is_understood(page: str, line: str) -> None:  # noqa: ARG001 (names the page in the test's id)
    parsed(line)


def test_the_command_lines_are_found() -> None:
    assert len(LINES) > 60
    assert ("docs/tutorial.md", "fluobook lab up phase1 --fault talos.bootstrap-lost-once") in LINES


@pytest.mark.parametrize(
    "line", ["fluobook run phase1 --aprove all", "fluobook lab upp", "fluobook check phase1 phase2"]
)
def test_a_command_that_does_not_exist_would_be_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|unexpected|upp"):
        parsed(line)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(MAKE.findall(code_of(page))) - NO_TARGETS - targets == set()


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=named)
def test_every_fault_that_is_named_can_be_played(page: Path) -> None:
    systems = "|".join(sorted({name.partition(".")[0] for name in FAULTS}))
    words = re.findall(rf"(?:--fault |^)((?:{systems})\.[a-z0-9]+(?:-[a-z0-9]+)+)(?=\s|$)", code_of(page), re.MULTILINE)
    assert set(words) - set(FAULTS) == set()


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=named)
def test_no_path_of_one_machine_is_told(page: Path) -> None:
    assert MACHINE.findall(text_of(page)) == []


def test_the_readme_lists_every_stage_and_its_notebook() -> None:
    rows = re.findall(
        r"^\| (\d+) \| \[(\w+)\]\(notebooks/(\w+)\.ipynb\) \| *([\w-]*) *\|",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    assert [f"{name}.ipynb" for _, name, _, _ in rows] == [path.name for path in NOTEBOOKS]
    assert all(name == linked and int(number) == int(name[:2]) for number, name, linked, _ in rows)
    stages = [(stage.number, stage.name) for stage in (*catalogue.STAGES, *catalogue.DAY_TWO)]
    assert [(int(number), stage) for number, _, _, stage in rows if stage] == stages


def test_every_environment_variable_is_on_its_page() -> None:
    code = [*(ROOT / "fluobook").rglob("*.py"), *(ROOT / "lab").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    code += [*(ROOT / "tests").rglob("*.py"), ROOT / "Makefile", ROOT / ".ci" / "run"]
    used = {name for path in code for name in re.findall(r"FLUOBOOK_[A-Z_]*[A-Z]", path.read_text())}
    page = (ROOT / "docs" / "reference" / "environment.md").read_text()
    assert set(re.findall(r"`(FLUOBOOK_[A-Z_]+)`", page)) == used


def test_every_decision_has_a_date_and_a_status() -> None:
    records = [path for path in (ROOT / "docs" / "decisions").glob("*.md") if path.name != "README.md"]
    assert [path.name for path in records if not STATUS.search(path.read_text())] == []


def test_the_index_of_decisions_lists_every_record() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(LINK.findall((folder / "README.md").read_text()))
    assert listed == {path.name for path in folder.glob("*.md")} - {"README.md"}


def test_the_index_lists_every_page() -> None:
    folder = ROOT / "docs"
    listed = {target.partition("#")[0] for target in LINK.findall((folder / "README.md").read_text())}
    pages = {str(path.relative_to(folder)) for path in folder.rglob("*.md")}
    assert {page for page in pages if not page.startswith("decisions/")} - {"README.md"} <= listed


def test_reference_pages_are_up_to_date() -> None:
    found = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert found is not None
    assert found.loader is not None
    reference = importlib.util.module_from_spec(found)
    found.loader.exec_module(reference)
    differing = [name for name in reference.PAGES if (reference.FOLDER / name).read_text() != reference.page(name)]
    assert differing == [], "run tools/reference.py"
