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
    for definition in (schema, *schema["$defs"].values()):
        _relax(definition)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


def _relax(definition: dict[str, Any]) -> None:
    """What has a default, and sections of which everything has one, may be left out of a file."""
    properties = definition.get("properties", {})
    for field in properties.values():
        field.pop("title", None)
    definition["required"] = [
        name for name in definition.get("required", ()) if "default" not in properties.get(name, {"default": None})
    ]


if __name__ == "__main__":
    sys.stdout.write(schema_text())
