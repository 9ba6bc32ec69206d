"""Talos machine configurations as text: a stream of YAML documents, read as Talos reads it.

Talos' reader differs from PyYAML: `off` is a text and not false, `1e3` is a number, `2024-04-01` is a text. Text that
is written here means the same in both, even a hostname `no`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from fluobook.errors import BadFile, ParamsError
from fluobook.files import parse_yaml
from fluobook.kubernetes.manifests import KubernetesLoader

# One document of a machine configuration: plain dicts, lists and scalars.
Document = dict[str, Any]

_BOOL = "tag:yaml.org,2002:bool"


class TalosLoader(KubernetesLoader):
    """Numbers as Kubernetes' readers parse them, and only `true` and `false` for booleans."""


class TalosDumper(yaml.SafeDumper):
    """Quotes texts that YAML 1.1 or 1.2 would read as another type, and keeps manifests readable."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  PyYAML's signature
        """Never use aliases: Talos reads them, people do not."""
        return True


def load(text: str, origin: str = "a machine configuration") -> list[Document]:
    """The documents in a text, empty ones left out.

    Args:
        text: YAML documents.
        origin: its name in an error, such as the file's path.

    Raises:
        ParamsError: the text is not YAML, has a key twice, or a document is no mapping. The text is not quoted: it may
            contain secrets.
    """
    try:
        documents = [document for document in parse_yaml(text, origin, loader=TalosLoader) if document is not None]
    except BadFile as error:
        raise ParamsError(error.message, cause=error.cause, remedy=error.remedy) from None
    for document in documents:
        if not isinstance(document, dict):
            hint = "JSON 6902 patches are not supported" if isinstance(document, list) else ""
            raise ParamsError(f"{origin} consists of mappings", cause=hint)
    return documents


def dump(documents: Iterable[Document]) -> str:
    """The documents as one stream of YAML: the same text for the same documents, keys in their given order."""
    return yaml.dump_all(
        list(documents),
        Dumper=TalosDumper,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
        explicit_start=True,
    )


def _own(resolvers: dict[str, list[tuple[str, Any]]], tag: str) -> dict[str, list[tuple[str, Any]]]:
    return {first: [each for each in known if each[0] != tag] for first, known in resolvers.items()}


def _text(dumper: TalosDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


TalosLoader.yaml_implicit_resolvers = _own(KubernetesLoader.yaml_implicit_resolvers, _BOOL)
TalosLoader.add_implicit_resolver(_BOOL, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
TalosDumper.add_representer(str, _text)
for _first, _resolvers in KubernetesLoader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        if _first is not None:
            TalosDumper.add_implicit_resolver(_tag, _pattern, [_first])
