from __future__ import annotations

import pytest

from fluobook.errors import ParamsError
from fluobook.params.reading import parse_yaml, with_value


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


PLACE = ("platform", "versions", "kubernetes")
FILES = {
    "platform:\n  versions: {talos: null, kubernetes: null}  # the pins\n": (
        'platform:\n  versions: {talos: null, kubernetes: "1.36.2"}  # the pins\n'
    ),
    'platform:\n  versions:\n    # newest\n    kubernetes: "1.35.4"   # tested\n    talos: null\n': (
        'platform:\n  versions:\n    # newest\n    kubernetes: "1.36.2"   # tested\n    talos: null\n'
    ),
    "platform:\n  versions: {}\n": 'platform:\n  versions: {kubernetes: "1.36.2"}\n',
    "platform:\n  versions: {talos: null}\n": 'platform:\n  versions: {kubernetes: "1.36.2", talos: null}\n',
    "platform:\n  versions:\n    talos: null  # ü\n": (
        'platform:\n  versions:\n    kubernetes: "1.36.2"\n    talos: null  # ü\n'
    ),
    "phase: a\nplatform:\n  cluster: {name: a}\n": (
        'phase: a\nplatform:\n  versions: {kubernetes: "1.36.2"}\n  cluster: {name: a}\n'
    ),
}


@pytest.mark.parametrize("text", FILES)
def test_one_value_of_a_file_is_changed_and_nothing_else(text: str) -> None:
    assert with_value(text, PLACE, "1.36.2") == FILES[text]


@pytest.mark.parametrize("text", ["platform: []\n", "platform: {versions: null}\n"])
def test_a_value_that_has_no_place_is_refused(text: str) -> None:
    with pytest.raises(ParamsError, match=r"platform\.versions\.kubernetes cannot be changed"):
        with_value(text, PLACE, "1.36.2")
