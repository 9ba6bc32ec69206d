"""Builds fluobook/gitops/data/schemas.json.xz: the shapes that `fluobook check` holds every object of the tree against.

Run it by hand for new versions: `build.py _definitions.json CRD… > schemas.json.xz`. `_definitions.json` is Kubernetes' own
OpenAPI as JSON schemas; the PyPI package kubernetes-validate has one for each minor release
(kubernetes_validate/kubernetes-json-schema/v1.35.0-local/_definitions.json). Each CRD is the JSON schema of one version of
a custom resource, with `x-kubernetes-group-version-kind`. All of it is Apache-2.0 (RabbitMQ's: MPL-2.0); prose is left out.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from pathlib import Path
from typing import Any

PLAIN = {"type", "enum", "required", "$ref", "pattern", "minimum", "maximum"}
PLAIN |= {"minLength", "maxLength", "minItems", "maxItems"}
SCHEMAS = {"items", "additionalProperties", "allOf", "anyOf", "oneOf", "not"}
SERVED = re.compile(r"v\d+")
"""Versions that an API server serves unless told otherwise: alpha and beta are off."""
CLUSTER = (
    "/ComponentStatus",
    "/Namespace",
    "/Node",
    "/PersistentVolume",
    "admissionregistration.k8s.io/MutatingWebhookConfiguration",
    "admissionregistration.k8s.io/ValidatingAdmissionPolicy",
    "admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding",
    "admissionregistration.k8s.io/ValidatingWebhookConfiguration",
    "apiextensions.k8s.io/CustomResourceDefinition",
    "apiregistration.k8s.io/APIService",
    "authentication.k8s.io/SelfSubjectReview",
    "authentication.k8s.io/TokenReview",
    "authorization.k8s.io/SelfSubjectAccessReview",
    "authorization.k8s.io/SelfSubjectRulesReview",
    "authorization.k8s.io/SubjectAccessReview",
    "certificates.k8s.io/CertificateSigningRequest",
    "flowcontrol.apiserver.k8s.io/FlowSchema",
    "flowcontrol.apiserver.k8s.io/PriorityLevelConfiguration",
    "networking.k8s.io/IPAddress",
    "networking.k8s.io/IngressClass",
    "networking.k8s.io/ServiceCIDR",
    "node.k8s.io/RuntimeClass",
    "rbac.authorization.k8s.io/ClusterRole",
    "rbac.authorization.k8s.io/ClusterRoleBinding",
    "resource.k8s.io/DeviceClass",
    "resource.k8s.io/ResourceSlice",
    "scheduling.k8s.io/PriorityClass",
    "storage.k8s.io/CSIDriver",
    "storage.k8s.io/CSINode",
    "storage.k8s.io/StorageClass",
    "storage.k8s.io/VolumeAttachment",
    "storage.k8s.io/VolumeAttributesClass",
)
"""Built-in kinds without a namespace, as group/Kind: the schemas do not say."""
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def strict(schema: Any) -> Any:
    """Without prose, references local, and unknown fields refused where the API server would warn of them."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items() if key in SCHEMAS}
    result |= {key: value for key, value in schema.items() if key in PLAIN}
    if "properties" in schema:
        result["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            result["additionalProperties"] = False
    if "$ref" in result:
        result["$ref"] = "#/definitions/" + result["$ref"].rpartition("/")[2]
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if schema.get("nullable") and isinstance(result.get("type"), str):
        result["type"] = [result["type"], "null"]
    return result


def main(kubernetes: Path, custom: list[Path]) -> None:
    """Write the file to standard output."""
    kinds: dict[str, Any] = {}
    cluster = list(CLUSTER)
    definitions: dict[str, Any] = {}
    for name, schema in json.loads(kubernetes.read_text())["$defs"].items():
        definitions[name] = strict(schema)
        for kind in schema.get("x-kubernetes-group-version-kind") or []:
            if SERVED.fullmatch(kind["version"]) and not kind["kind"].endswith(("List", "Options", "Event", "APIVersions")):
                kinds["/".join((kind["group"], kind["version"], kind["kind"]))] = {"$ref": f"#/definitions/{name}"}
    for path in custom:
        schema = json.loads(path.read_text())
        kind = schema["x-kubernetes-group-version-kind"][0]
        shape = strict(schema)
        shape["properties"]["metadata"] = {"$ref": f"#/definitions/{META}"}
        kinds["/".join((kind["group"], kind["version"], kind["kind"]))] = shape
        cluster += [f"{kind['group']}/{kind['kind']}"] if schema.get("x-scope") == "Cluster" else []
    text = json.dumps(
        {"kinds": kinds, "definitions": definitions, "cluster": cluster}, sort_keys=True, separators=(",", ":")
    )
    sys.stdout.buffer.write(lzma.compress(text.encode(), preset=9))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
