"""Answers in the form that the client asked for: plain JSON, tables, or metadata alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fluobook.lab.kube.tables import TableFormat, partial, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook.lab.kube.objects import Obj
    from fluobook.lab.kube.resources import Resource


def encoded(value: Any) -> bytes:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":")).encode()


def json_answer(value: Any, status: int = 200, warnings: Sequence[str] = ()) -> web.Response:
    """A JSON response, with the API's warnings in its headers."""
    response = web.Response(body=encoded(value), status=status, content_type="application/json")
    for warning in dict.fromkeys(warnings):
        text = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{text}"')
    return response


@dataclass(frozen=True)
class Form:
    """What the Accept header asks for: "Table", "PartialObjectMetadata" or "" (the objects themselves)."""

    kind: str
    include: str

    @classmethod
    def of(cls, accept: str, include: str) -> Form:
        """The first form in the header that is known here."""
        for part in accept.split(","):
            for known in ("Table", "PartialObjectMetadata"):
                if f"as={known}" in part:
                    return cls(known, include or "Metadata")
            if part.strip().startswith(("application/json", "*/*")):
                break
        return cls("", "")

    def one(self, resource: Resource, obj: Obj, *, headers: bool = True) -> Obj:
        """An object."""
        if self.kind == "Table":
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return table(resource, [obj], metadata, TableFormat(self.include, headers))
        return partial(obj) if self.kind else obj

    def many(self, resource: Resource, objs: list[Obj], metadata: Obj) -> Obj:
        """A list of objects."""
        if self.kind == "Table":
            return table(resource, objs, metadata, TableFormat(self.include))
        if self.kind:
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return {**head, "metadata": metadata, "items": [partial(obj) for obj in objs]}
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        items = objs if resource.custom else [_headless(obj) for obj in objs]
        return {**head, "metadata": metadata, "items": items}


def _headless(obj: Obj) -> Obj:
    """Items of a list have no apiVersion and kind of their own, but for custom resources."""
    return {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
