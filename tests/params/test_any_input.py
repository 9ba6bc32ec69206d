"""Whatever is written in a file, it is accepted or refused with its problems: nothing else may happen."""

from __future__ import annotations

import contextlib
import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fluobook.errors import ParamsError
from fluobook.params import parse
from fluobook.params.reading import read

if TYPE_CHECKING:
    from collections.abc import Iterator

VALID = read(Path(__file__).parents[2] / "params" / "phase3.yaml")
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["10.10.0.10", "10.10.0.0/24", "0.0.0.0/0", "pve1", "https://[::1", "a:1", "1.13.9", "\x00"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


PLACES = [path for path in places(VALID) if path]


@settings(max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_a_changed_file_is_accepted_or_refused_with_problems(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    document = copy.deepcopy(VALID)
    for path, value in changes:
        put(document, path, value)
    for problem in problems_of(document):
        assert re.match(r"(phase|platform).*: \S", problem)


def problems_of(document: Any) -> tuple[str, ...]:
    """What is said of a file; none if it is accepted."""
    try:
        parse(document)
    except ParamsError as error:
        return error.problems or ("refused without a problem",)
    return ()


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    """Set the value at a path, unless an earlier change took the path away."""
    *parents, last = path
    with contextlib.suppress(KeyError, IndexError, TypeError):
        for step in parents:
            document = document[step]
        document[last] = value
