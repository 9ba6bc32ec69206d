"""Reads Kubernetes manifests as kubectl, helm and Argo CD read them, so that all sides see the same values.

PyYAML alone would not: it turns `2024-04-01` into a date, `12:30` into 750 and fails on a bare `=`, and it takes `1e3`
for a string; the Go readers do none of that. Written out, documents are JSON, which every YAML reader agrees on.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

Manifest = dict[str, Any]


class KubernetesLoader(yaml.CSafeLoader):
    """PyYAML's fast loader with the scalars of sigs.k8s.io/yaml."""


KubernetesLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in {"null", "bool", "merge"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
KubernetesLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)
KubernetesLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    list("-+0123456789."),
)


def load(text: str) -> list[Manifest]:
    """The documents in a text, empty ones left out, the items of a `List` taken out of it.

    Raises:
        yaml.YAMLError: the text is not YAML.
        ValueError: a document is no mapping.
    """
    manifests: list[Manifest] = []
    for document in yaml.load_all(text, Loader=KubernetesLoader):
        if document is None or document == {}:
            continue
        if not isinstance(document, dict):
            raise ValueError(  # noqa: TRY004  the text is wrong, not its type
                f"not a Kubernetes manifest but {type(document).__name__}: {str(document)[:60]!r}"
            )
        if document.get("kind") == "List" and document.get("apiVersion") == "v1":
            manifests += document.get("items") or []
        else:
            manifests.append(document)
    return manifests


def dump(documents: list[Manifest]) -> str:
    """The documents as a YAML stream, each of them as one line of JSON."""
    return "".join(f"---\n{json.dumps(document)}\n" for document in documents)
