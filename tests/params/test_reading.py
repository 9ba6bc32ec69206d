from __future__ import annotations

import pytest

from fluobook.errors import ParamsError
from fluobook.params.reading import parse_yaml


@pytest.mark.parametrize(
    "text",
    ["a: yes", "a: off", "a: 1:30", "a: 010", "a: {b: [on]}", "on: 1", "a: 0o17", "a: 52:54:00:12:34:56"],
)
def test_what_yaml_1_1_and_1_2_read_differently_is_refused(text: str) -> None:
    with pytest.raises(ParamsError, match=r"different things in YAML 1\.1 and 1\.2"):
        parse_yaml(text, "it")


@pytest.mark.parametrize(
    "text",
    ['a: "yes"', "a: true", "a: 90", 'a: "010"', "a: 1.5", "a: null", "a: .nan", "a: -.inf", "a: BC:24:11:00:01:10"],
)
def test_what_both_read_alike_is_accepted(text: str) -> None:
    assert "a" in parse_yaml(text, "it")


def test_the_place_of_the_difference_is_named() -> None:
    with pytest.raises(ParamsError) as refused:
        parse_yaml("nodes:\n  - {name: w1, mac: 52:54:00:12:34:56}", "it")
    assert refused.value.problems[0].startswith("nodes.w1.mac = '52:54:00:12:34:56'")


def test_python_objects_are_not_made() -> None:
    with pytest.raises(ParamsError):
        parse_yaml("!!python/object/apply:os.system ['true']", "it")


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\t- a", "a: *nowhere"])
def test_broken_yaml_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ParamsError, match="one problem") as refused:
        parse_yaml(text, "it")
    assert refused.value.problems[0].startswith("line ")


@pytest.mark.parametrize(
    "text",
    ["a: !!set {b, c}", "a: !!omap [b: 1]", "a: !!binary aGk=", "a: !!timestamp 2026-01-02", "a: !!python/tuple [b]"],
)
def test_a_type_that_json_does_not_have_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ParamsError) as refused:
        parse_yaml(f"x: 1\n{text}", "it")
    assert refused.value.problems == ("line 2: it has a tag for a type that JSON does not have, such as !!set",)


@pytest.mark.parametrize("text", ["a: 2024-13-45", "a: " + "9" * 5000])
def test_a_value_that_cannot_be_read_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ParamsError) as refused:
        parse_yaml(f"x: 1\n{text}", "it")
    assert refused.value.problems[0].startswith("line 2: it is not YAML")
