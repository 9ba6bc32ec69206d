"""params/schema.json, made from the models, so that an editor completes and checks params files.

python -m fluobook.params.schema > params/schema.json
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
        _leave_out_what_may_be_left_out(definition)
    optional = {f"#/$defs/{name}" for name, definition in definitions.items() if not definition["required"]}
    platform = definitions["Platform"]
    platform["required"] = [
        name for name in platform["required"] if platform["properties"][name].get("$ref") not in optional
    ]
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


def _leave_out_what_may_be_left_out(definition: dict[str, Any]) -> None:
    """What has a default, or is derived, is not required in a file."""
    properties = definition["properties"]
    for field in properties.values():
        field.pop("title", None)
    given = [name for name in definition.get("required", ()) if name in properties]
    definition["required"] = [name for name in given if "default" not in properties[name]]


if __name__ == "__main__":
    sys.stdout.write(schema_text())
