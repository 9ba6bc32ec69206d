"""params/schema.json, generated from the models: an editor completes and checks params files with it.

python -m fluobook.params.json_schema > params/schema.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

from fluobook.params.platform import Params


def schema_text() -> str:
    """The JSON schema of a params file, as it is committed."""
    schema = Params.model_json_schema()
    definitions = schema["$defs"]
    for definition in (*definitions.values(), schema):
        _require_only_what_has_no_default(definition)
    optional = {f"#/$defs/{name}" for name, definition in definitions.items() if not definition["required"]}
    platform = definitions["Platform"]
    platform["required"] = [
        name for name in platform["required"] if platform["properties"][name].get("$ref") not in optional
    ]
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


def _require_only_what_has_no_default(definition: dict[str, Any]) -> None:
    """A value with a default, or a derived one, is not required in a file."""
    properties = definition["properties"]
    for field in properties.values():
        field.pop("title", None)
    given = [name for name in definition.get("required", ()) if name in properties]
    definition["required"] = [name for name in given if "default" not in properties[name]]


if __name__ == "__main__":
    sys.stdout.write(schema_text())
