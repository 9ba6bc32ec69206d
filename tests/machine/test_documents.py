"""Text and documents: one meaning for Talos, PyYAML and people."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from fluobook.errors import ParamsError
from fluobook.failures import present
from fluobook.machine.documents import dump, load

_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12) | st.sampled_from(
    [
        "off",
        "no",
        "y",
        "~",
        "",
        "0o17",
        "017",
        "1e3",
        "1_000",
        "12:30",
        "2024-04-01",
        "=",
        "<<",
        "a: b",
        "#x",
        " x",
        "x\n",
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_TEXT, _VALUES, min_size=1, max_size=4))
def test_what_is_written_is_read_the_same_by_both_generations_of_yaml(document: dict[str, Any]) -> None:
    text = dump([document, document])
    assert load(text) == [document, document]
    assert list(yaml.safe_load_all(text)) == [document, document]
    assert list(YAML(typ="safe", pure=True).load_all(text)) == [document, document]


def test_the_text_is_the_same_each_time_and_keeps_the_order() -> None:
    documents = [{"b": 1, "a": {"d": 2, "c": 3}}]
    assert dump(documents) == dump(documents) == "---\nb: 1\na:\n  d: 2\n  c: 3\n"


def test_manifests_stay_readable() -> None:
    assert dump([{"contents": "a: 1\nb: 2\n"}]) == "---\ncontents: |\n  a: 1\n  b: 2\n"


def test_values_that_appear_twice_are_written_twice() -> None:
    shared = {"x": [1]}
    assert "&" not in dump([{"a": shared, "b": shared}])


def test_scalars_are_read_as_talos_reads_them() -> None:
    text = "{a: off, b: yes, c: true, d: 0o17, e: 1e3, f: 2024-04-01, g: 12:30, h: null, i: '1'}"
    expected = {
        "a": "off", "b": "yes", "c": True, "d": 15, "e": 1000.0, "f": "2024-04-01", "g": "12:30", "h": None, "i": "1",
    }  # fmt: skip
    assert load(text) == [expected]


def test_empty_documents_are_left_out() -> None:
    assert load("---\n---\na: 1\n---\n# nothing\n") == [{"a": 1}]


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\x00", "{a: 'secret"])
def test_what_is_no_yaml_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ParamsError, match="not YAML") as caught:
        load(text)
    assert "secret" not in present(caught.value).text()
