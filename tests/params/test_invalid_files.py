"""Each file in invalid/ makes one mistake; its first lines say what must be said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluobook.errors import ParamsError
from fluobook.params import load

FILES = sorted((Path(__file__).parent / "invalid").glob("*.yaml"))
CASES = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@CASES
def test_a_mistake_is_refused_and_named(path: Path) -> None:
    expected = expectations(path)
    assert expected
    with pytest.raises(ParamsError) as refused:
        load(path)
    told = "\n".join(refused.value.problems)
    assert [words for words in expected if words not in told] == []


@CASES
def test_nothing_is_said_beyond_the_mistake(path: Path) -> None:
    with pytest.raises(ParamsError) as refused:
        load(path)
    unexpected = [told for told in refused.value.problems if not any(words in told for words in expectations(path))]
    assert unexpected == []


@CASES
def test_no_secret_is_repeated(path: Path) -> None:
    with pytest.raises(ParamsError) as refused:
        load(path)
    assert "hunter2" not in (refused.value.diagnostics() + repr(refused.value)).lower()


def test_many_mistakes_are_known() -> None:
    assert len(FILES) >= 30


def expectations(path: Path) -> list[str]:
    """What must be said: the lines that begin with "# expect: "."""
    mark = "# expect: "
    return [line.removeprefix(mark) for line in path.read_text().splitlines() if line.startswith(mark)]
