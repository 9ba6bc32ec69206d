"""The lab's verdicts on machine configurations are those that Talos' own code gave (tests/engines asks it again)."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from fluobook_lab.talos.config import InvalidConfigurationError, load, validate

from fluobook.machine import generate
from fluobook.machine.secrets import new_secrets
from tests.lab.talos.configurations import CASES, text_of

SECRETS = new_secrets()


def verdict(text: str) -> str:
    try:
        validate(load(text))
    except InvalidConfigurationError as error:
        return str(error)
    return ""


def test_configurations_are_accepted_and_refused_as_by_talos() -> None:
    verdicts = [(case, verdict(text_of(case))) for case in CASES]
    assert [(case, message) for case, message in verdicts if bool(message) != ("refused" in case)] == []
    assert len(CASES) > 200


def test_refusals_have_talos_words() -> None:
    verdicts = [(case, verdict(text_of(case))) for case in CASES if "refused" in case]
    assert [(case, message) for case, message in verdicts if case["refused"] not in message] == []


@pytest.mark.parametrize("value", [None, "", [], {}, [None], 0, True, "text"], ids=repr)
def test_no_value_of_a_field_raises_another_error(value: Any) -> None:
    """A wrong value anywhere is refused or accepted, whatever the place."""
    for case in CASES:
        if isinstance(document := case.get("documents"), dict):
            for changed in with_each_value(document, value):
                verdict(yaml.safe_dump(changed))


@pytest.mark.parametrize("value", [None, "", [], {}, [None], 0, True, "text"], ids=repr)
def test_no_value_in_a_document_of_1_14_raises_another_error(value: Any) -> None:
    """What the node reads of a configuration that it accepts is never a surprise either."""
    made = generate("lab", "https://10.0.0.10:6443", "1.35.4", SECRETS, "/dev/vda", contract="1.14")
    for document in made.controlplane[1:]:
        for changed in with_each_value(document, value):
            documents = [changed if each is document else each for each in made.controlplane]
            try:
                config = load(yaml.safe_dump_all(documents), "1.14")
                validate(config, "1.14")
            except InvalidConfigurationError:
                continue
            assert config.machine["type"] == "controlplane"


def with_each_value(document: Any, value: Any) -> Iterator[Any]:
    """Copies of a document with the value in each place in turn."""
    if isinstance(document, dict):
        for key, child in document.items():
            if key not in {"apiVersion", "kind"}:
                yield document | {key: value}
                yield from (document | {key: changed} for changed in with_each_value(child, value))
    elif isinstance(document, list):
        for index, child in enumerate(document):
            for changed in (value, *with_each_value(child, value)):
                yield [*document[:index], changed, *document[index + 1 :]]
