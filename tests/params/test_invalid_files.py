"""Each file in invalid/ makes one mistake; its first lines are what the error must contain."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluobook.errors import ParamsError
from fluobook.failures import present
from fluobook.params import load

FILES = sorted((Path(__file__).parent / "invalid").glob("*.yaml"))
CASES = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@CASES
def test_a_mistake_is_refused_and_named(path: Path) -> None:
    expected = expectations(path)
    assert expected
    with pytest.raises(ParamsError) as refused:
        load(path)
    message = "\n".join(refused.value.problems)
    assert [words for words in expected if words not in message] == []


@CASES
def test_nothing_but_the_mistake_is_reported(path: Path) -> None:
    with pytest.raises(ParamsError) as refused:
        load(path)
    unexpected = [
        problem for problem in refused.value.problems if not any(words in problem for words in expectations(path))
    ]
    assert unexpected == []


@CASES
def test_no_secret_is_repeated(path: Path) -> None:
    with pytest.raises(ParamsError) as refused:
        load(path)
    assert "hunter2" not in (present(refused.value).text() + repr(refused.value)).lower()


def test_many_mistakes_are_known() -> None:
    assert len(FILES) >= 30


def expectations(path: Path) -> list[str]:
    """What the error must contain: the lines that begin with "# expect: "."""
    mark = "# expect: "
    return [line.removeprefix(mark) for line in path.read_text().splitlines() if line.startswith(mark)]
