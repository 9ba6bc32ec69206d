"""Conventions that no linter knows: sizes, names, and what a notebook may contain."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "fluobook" / "wire" / "generated"
MODULES = sorted(
    path
    for package in (ROOT / "fluobook", ROOT / "lab" / "fluobook_lab")
    for path in package.rglob("*.py")
    if GENERATED not in path.parents
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

LONGEST_MODULE, LONGEST_FUNCTION, MOST_POSITIONAL = 700, 80, 5
VAGUE = re.compile(r"(^|_)(utils?|helpers?|misc|common|manager)(_|$)")
ADDRESS = re.compile(r"https?://[^\s\"']+/simple|--(extra-)?index-url|--find-links")


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines without the docstring's."""
    words = ast.get_docstring(function, clean=False)
    return (function.end_lineno or 0) - function.lineno + 1 - (len(words.splitlines()) if words else 0)


def positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = [arg.arg for arg in function.args.posonlyargs + function.args.args]
    return [name for name in given if name not in ("self", "cls")]


@pytest.fixture(params=NOTEBOOKS, ids=by_name)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_modules_are_short_and_say_why_they_exist():
    texts = {by_name(path): path.read_text() for path in MODULES}
    assert [name for name, text in texts.items() if len(text.splitlines()) > LONGEST_MODULE] == []
    assert [name for name, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))] == []


def test_functions_are_short_and_take_few_positional_arguments():
    every = [(by_name(path), function) for path in MODULES for function in functions(path)]
    long = [(name, one.name) for name, one in every if length(one) > LONGEST_FUNCTION]
    wide = [(name, one.name) for name, one in every if len(positional(one)) > MOST_POSITIONAL]
    assert long == []
    assert [one for one in wide if not one[0].startswith("fluobook/cli/")] == []


def test_names_say_what_is_in_them():
    assert [by_name(path) for path in MODULES if VAGUE.search(path.stem)] == []


def test_each_folder_of_tests_mirrors_one_of_the_package():
    beside = {"browser", "notebooks", "engines", "lab", "site"}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    packages = {path.name for path in (ROOT / "fluobook").iterdir() if path.is_dir()}
    assert folders - beside <= packages


@pytest.mark.parametrize(("lock", "least"), [("requirements.lock", 100), ("requirements-dev.lock", 20)])
def test_a_lock_has_a_hash_for_everything_and_no_address_of_an_index(lock, least):
    text = (ROOT / lock).read_text()
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==\S+", text, re.MULTILINE)
    assert len(pins) > least
    for block in re.split(r"\n(?=[A-Za-z0-9])", text[text.index(pins[0]) :]):
        assert "--hash=sha256:" in block, block.splitlines()[0]
    assert not ADDRESS.search(text)


def test_each_declared_dependency_is_in_the_lock_of_its_group_and_no_package_is_in_both():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lab = tomllib.loads((ROOT / "lab" / "pyproject.toml").read_text())
    needed = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    needed += [name for name in lab["project"]["dependencies"] if not name.startswith("fluobook")]
    runtime, development = locked("requirements.lock"), locked("requirements-dev.lock")
    assert distributions(needed) - runtime == set()
    assert distributions(project["dependency-groups"]["dev"]) - development - runtime == set()
    assert runtime & development == set()


def locked(lock: str) -> set[str]:
    """The distributions that a lock pins."""
    text = (ROOT / lock).read_text()
    return {plain(name) for name in re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE)}


def distributions(requirements: list[str]) -> set[str]:
    """The names in requirements such as `pytest>=9`."""
    return {plain(re.split(r"[<>=!\[; ]", requirement)[0]) for requirement in requirements}


def plain(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_a_notebook_begins_with_its_title_and_ends_with_words(notebook):
    first, last = notebook.cells[0], notebook.cells[-1]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert last.cell_type == "markdown"


def test_a_notebook_has_one_cell_of_parameters(notebook):
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert not tagged[0].get("outputs")


def test_a_notebook_holds_no_logic_of_its_own(notebook):
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tree = ast.parse(cell.source)
        banned = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.Try)
        assert not [node for node in ast.walk(tree) if isinstance(node, banned)], cell.source
        assert len(cell.source.splitlines()) <= 10, cell.source


def test_a_notebook_carries_no_trace_of_a_run(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)
    assert {name for cell in notebook.cells for name in cell.metadata} <= {"tags"}
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    assert notebook.metadata == {"kernelspec": kernel, "language_info": {"name": "python"}}
