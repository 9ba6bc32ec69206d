from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from fluobook.machine.secrets import SecretsBundle, new_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = Path(__file__).parent / "data" / "talos-1.13-config.schema.json"


@pytest.fixture(scope="session")
def secrets() -> SecretsBundle:
    """One set of secrets for all tests: the RSA key in it takes a while."""
    return new_secrets()


@pytest.fixture(scope="session")
def problems_by_schema() -> Callable[[dict[str, Any]], list[str]]:
    """What Talos' own JSON Schema has against a document."""
    schema = json.loads(SCHEMA.read_text())
    by_kind = {}
    for reference in schema["oneOf"]:
        definition = schema["$defs"][reference["$ref"].rpartition("/")[2]]
        kinds = definition["properties"].get("kind", {}).get("enum", [""])
        by_kind |= dict.fromkeys(kinds, reference)

    def problems(document: dict[str, Any]) -> list[str]:
        kind = document.get("kind", "")
        if kind not in by_kind:
            return [f"no such kind: {kind}"]
        validator = jsonschema.Draft202012Validator({"$defs": schema["$defs"], **by_kind[kind]})
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]

    return problems
