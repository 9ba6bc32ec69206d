"""Builds fluobook/gitops/data/schemas.json.xz: the shapes that `fluobook check` holds every object of the tree against.

Run it by hand for new versions: `build.py dump.json CRD… > schemas.json.xz`. `dump.json` holds what a running
kube-apiserver serves ({"openapi": {path: document}, "api": …, "apis": …}, the last two its aggregated discovery); each
CRD is the JSON schema of one version of a custom resource, with `x-kubernetes-group-version-kind`. All of it is
Apache-2.0 (RabbitMQ's: MPL-2.0); prose is left out.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path
from typing import Any

PLAIN = {"type", "enum", "required", "$ref", "pattern", "minimum", "maximum"}
PLAIN |= {"minLength", "maxLength", "minItems", "maxItems"}
SCHEMAS = {"items", "additionalProperties", "allOf", "anyOf", "oneOf", "not"}
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def strict(schema: Any) -> Any:
    """Without prose, references local, and unknown fields refused where the API server would warn of them."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items() if key in SCHEMAS}
    found |= {key: value for key, value in schema.items() if key in PLAIN}
    if "properties" in schema:
        found["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            found["additionalProperties"] = False
    if "$ref" in found:
        found["$ref"] = found["$ref"].replace("#/components/schemas/", "#/definitions/")
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if schema.get("nullable") and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


def cluster_scoped(served: dict[str, Any]) -> set[str]:
    """The built-in kinds without a namespace, as group/Kind."""
    return {
        f"{group['metadata'].get('name', '')}/{resource['responseKind']['kind']}"
        for group in [*served["api"]["items"], *served["apis"]["items"]]
        for version in group["versions"]
        for resource in version["resources"]
        if resource["scope"] == "Cluster"
    }


def main(dump: Path, custom: list[Path]) -> None:
    """Write the file to standard output."""
    served = json.loads(dump.read_text())
    kinds: dict[str, Any] = {}
    cluster = sorted(cluster_scoped(served))
    definitions: dict[str, Any] = {}
    for document in served["openapi"].values():
        for name, schema in (document.get("components") or {}).get("schemas", {}).items():
            definitions[name] = strict(schema)
            for one in schema.get("x-kubernetes-group-version-kind") or []:
                if not one["kind"].endswith(("List", "Options", "Event")):
                    kinds["/".join((one["group"], one["version"], one["kind"]))] = {"$ref": f"#/definitions/{name}"}
    for path in custom:
        schema = json.loads(path.read_text())
        one = schema["x-kubernetes-group-version-kind"][0]
        shape = strict(schema)
        shape["properties"]["metadata"] = {"$ref": f"#/definitions/{META}"}
        kinds["/".join((one["group"], one["version"], one["kind"]))] = shape
        cluster += [f"{one['group']}/{one['kind']}"] if schema.get("x-scope") == "Cluster" else []
    text = json.dumps(
        {"kinds": kinds, "definitions": definitions, "cluster": cluster}, sort_keys=True, separators=(",", ":")
    )
    sys.stdout.buffer.write(lzma.compress(text.encode(), preset=9))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
