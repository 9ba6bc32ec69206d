from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fluobook.params import repository_root
from fluobook.params.json_schema import schema_text
from fluobook.params.reading import read

ROOT = repository_root(Path(__file__))
FILES = [ROOT / "params" / f"phase{number}.yaml" for number in (1, 2, 3)]
FILES += sorted((Path(__file__).parent / "valid").glob("*.yaml"))


def test_the_committed_schema_is_current() -> None:
    committed = (ROOT / "params" / "schema.json").read_text()
    assert committed == schema_text(), "run: python -m fluobook.params.json_schema > params/schema.json"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_schema_accepts_what_the_loader_accepts(path: Path) -> None:
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(read(path))


def test_the_schema_refuses_unknown_keys(document: dict[str, Any]) -> None:
    document["platform"]["network"]["gatway"] = "10.10.0.1"
    with pytest.raises(jsonschema.ValidationError, match="gatway"):
        jsonschema.validate(document, json.loads(schema_text()))


def test_every_key_is_described() -> None:
    schema = json.loads(schema_text())
    plain = {
        f"{name}.{key}"
        for name, definition in schema["$defs"].items()
        for key, field in definition["properties"].items()
        if "description" not in field and "$ref" not in field
    }
    assert plain == set()
    assert all(definition.get("description") for definition in schema["$defs"].values())


def test_the_uuid_cannot_be_set() -> None:
    assert "uuid" not in json.loads(schema_text())["$defs"]["Node"]["properties"]
