"""Answers in the form that the client asked for: JSON or YAML, plain objects, tables, or metadata alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import web

from fluobook_lab.kube.errors import ApiError, bad_request
from fluobook_lab.kube.tables import TableFormat, partial, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource

YAML = "application/yaml"
_MEDIA = ("application/json", YAML, "application/vnd.kubernetes.protobuf")
_ANY = ("*/*", "application/*")
_FORMS = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")


def encoded(value: Any) -> bytes:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":")).encode()


def json_answer(value: Any, status: int = 200, warnings: Sequence[str] = ()) -> web.Response:
    """A JSON response, with the API's warnings in its headers."""
    response = web.Response(body=encoded(value), status=status, content_type="application/json")
    for warning in dict.fromkeys(warnings):
        text = warning.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        response.headers.add("Warning", f'299 - "{text}"')
    return response


def as_yaml(response: web.Response) -> None:
    """Say in YAML what a response says in JSON."""
    response.body = yaml.safe_dump(json.loads(bytes(response.body or b"{}")), sort_keys=True).encode()  # type: ignore[arg-type]
    response.content_type = YAML


@dataclass(frozen=True)
class Form:
    """What the Accept header asks for.

    Args:
        kind: "Table", "PartialObjectMetadata", "PartialObjectMetadataList", or "" (the objects themselves).
        include: of a table's rows.
        version: apiVersion of a table or of metadata.
        media: "application/json", or "application/yaml".
    """

    kind: str = ""
    include: str = ""
    version: str = "meta.k8s.io/v1"
    media: str = _MEDIA[0]

    @classmethod
    def of(cls, accept: str, include: str = "", *, listed: bool = False) -> Form:
        """The first form in the header that is known here.

        Raises:
            ApiError: 406, none is.
        """
        forms = False
        for media, options in _ranges(accept or "*/*"):
            if media not in (*_MEDIA, *_ANY):
                continue
            chosen = YAML if media == YAML else _MEDIA[0]
            if not (kind := options.get("as")):
                return cls(media=chosen)
            forms = True
            version = options.get("v", "")
            if kind in _FORMS and options.get("g") == "meta.k8s.io" and version in ("v1", "v1beta1"):
                return cls(kind, include, f"meta.k8s.io/{version}", chosen)
        raise _not_acceptable(forms=forms, listed=listed)

    def one(self, resource: Resource, obj: Obj, *, headers: bool = True) -> Obj:
        """An object.

        Raises:
            ApiError: 400 or 406, it cannot be shown so.
        """
        if self.kind == "Table":
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return self._table(resource, [obj], metadata, headers=headers)
        if self.kind == "PartialObjectMetadataList":
            raise _other_shape(self.kind, f"not a list (*{resource.group_name}.{resource.kind})")
        return partial(obj, self.version) if self.kind else obj

    def many(self, resource: Resource, objs: list[Obj], metadata: Obj) -> Obj:
        """A list of objects.

        Raises:
            ApiError: 400 or 406, they cannot be shown so.
        """
        if self.kind == "Table":
            return self._table(resource, objs, metadata)
        if self.kind == "PartialObjectMetadata":
            raise _other_shape(self.kind, f"a list (*{resource.group_name}.{resource.kind}List)")
        if self.kind:
            head = {"kind": "PartialObjectMetadataList", "apiVersion": self.version}
            return {**head, "metadata": metadata, "items": [partial(obj, self.version) for obj in objs]}
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        items = objs if resource.custom else [_headless(obj) for obj in objs]
        return {**head, "metadata": metadata, "items": items}

    def _table(self, resource: Resource, objs: list[Obj], metadata: Obj, *, headers: bool = True) -> Obj:
        if self.include not in ("", "None", "Metadata", "Object"):
            why = f"Invalid value: \"{self.include}\": must be 'Metadata', 'Object', 'None', or empty"
            raise bad_request(f"Unable to convert to Table as requested: includeObject: {why}")
        return table(resource, objs, metadata, TableFormat(self.include or "Metadata", self.version, headers))


def _ranges(accept: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The media ranges of an Accept header with their parameters, in its order."""
    for part in accept.split(","):
        media, *options = (piece.strip() for piece in part.split(";"))
        yield media, dict(option.split("=", 1) for option in options if "=" in option)


def _not_acceptable(*, forms: bool, listed: bool) -> ApiError:
    if forms:
        words = f"only the following media types are accepted: {', '.join(_MEDIA)}"
        return ApiError(406, "NotAcceptable", words)
    streams = (f"{_MEDIA[0]};stream=watch", f"{_MEDIA[2]};stream=watch") if listed else ()
    words = f"406: Not Acceptable\n\nAvailable representations: {', '.join((*_MEDIA, *streams))}"
    return ApiError(406, "NotAcceptable", words, {})


def _other_shape(kind: str, found: str) -> ApiError:
    return ApiError(406, "NotAcceptable", f"you requested {kind}, but the requested object is {found}")


def _headless(obj: Obj) -> Obj:
    """Items of a list have no apiVersion and kind of their own, but for custom resources."""
    return {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
