"""Answers in the form that the client asked for: plain objects, metadata alone, or tables.

printer_columns.yaml holds the columns of the built-in kinds.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fluobook_lab.kube.objects import data_file, json_path, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource


NONE = "<none>"
_NAME = {"name": "Name", "type": "string", "format": "name", "jsonPath": ".metadata.name"}
_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_ROLE = "node-role.kubernetes.io/"
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def columns_of(resource: Resource) -> list[Obj]:
    """A resource's columns: of its CustomResourceDefinition, of printer_columns.yaml, or name and age."""
    if resource.custom and resource.columns:
        return [_NAME, *resource.columns]
    plural = "events" if resource.plural == "events" else resource.qualified
    return [_NAME, *data_file("printer_columns.yaml").get(plural, [_AGE])]


def _header(column: Obj) -> Obj:
    kind = "string" if column["type"] == "date" and "cell" not in column else column["type"]
    header = {"name": column["name"], "type": kind, "format": "", "priority": 0, "description": ""}
    return {key: column.get(key, value) if key != "type" else kind for key, value in header.items()}


def _cell(column: Obj, obj: Obj) -> Any:
    if function := column.get("cell"):
        return _CELLS[function](obj)
    value = json_path(obj, column["jsonPath"])
    if value in (None, ""):
        return column.get("default", NONE)
    return age_since(value) if column["type"] == "date" and isinstance(value, str) else value


def partial(obj: Obj, version: str) -> Obj:
    """The object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": obj["metadata"]}


def age_since(when: str) -> str:
    """The time since a timestamp, in kubectl's form."""
    seconds = int((dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(when)).total_seconds())
    for unit, size, below in (("s", 1, 120), ("m", 60, 10 * 60), ("m", 60, 3 * 3600), ("h", 3600, 48 * 3600)):
        if seconds < below:
            rest = seconds % 60
            whole = f"{seconds // size}{unit}"
            return whole + (f"{rest}s" if below == 10 * 60 and rest else "")
    return f"{seconds // 86400}d"


def _status(obj: Obj) -> Obj:
    return obj.get("status") or {}


def _joined(values: Iterable[str], separator: str = ",") -> str:
    return separator.join(values) or NONE


def _labels(labels: Obj | None) -> str:
    return _joined(f"{key}={value}" for key, value in (labels or {}).items())


def _node_status(obj: Obj) -> str:
    ready = next((c["status"] for c in _status(obj).get("conditions") or [] if c["type"] == "Ready"), "")
    status = {"True": "Ready", "False": "NotReady", "Unknown": "NotReady"}.get(ready, "Unknown")
    return f"{status}" + (",SchedulingDisabled" if obj["spec"].get("unschedulable") else "")


def _node_roles(obj: Obj) -> str:
    return _joined(sorted(key.removeprefix(_ROLE) for key in labels_of(obj) if key.startswith(_ROLE)))


def _pod_ready(obj: Obj) -> str:
    ready = sum(bool(s.get("ready")) for s in _status(obj).get("containerStatuses") or [])
    return f"{ready}/{len(obj['spec'].get('containers') or [])}"


def _pod_status(obj: Obj) -> str:
    status = _status(obj)
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    states = [s.get("state") or {} for s in status.get("containerStatuses") or []]
    waiting = [state["waiting"]["reason"] for state in states if "waiting" in state]
    phase = {"Succeeded": "Completed", "Failed": "Error"}.get(status.get("phase", ""), status.get("phase", "Unknown"))
    return str(waiting[0] if waiting else status.get("reason") or phase)


def _external_address(obj: Obj) -> str:
    entries = (_status(obj).get("loadBalancer") or {}).get("ingress") or []
    pending = "<pending>" if obj["spec"].get("type") == "LoadBalancer" else NONE
    return ",".join(entry.get("ip") or entry.get("hostname", "") for entry in entries) or pending


def _service_port(port: Obj) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node_port}/{port.get('protocol', 'TCP')}"


def _involved_object(obj: Obj) -> str:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _request_condition(obj: Obj) -> str:
    kinds = [c["type"] for c in _status(obj).get("conditions") or []]
    return ",".join(kinds + (["Issued"] if _status(obj).get("certificate") else [])) or "Pending"


_CELLS: dict[str, Callable[[Obj], Any]] = {
    "node_status": _node_status,
    "node_roles": _node_roles,
    "pod_ready": _pod_ready,
    "pod_status": _pod_status,
    "pod_restarts": lambda obj: str(sum(s.get("restartCount", 0) for s in _status(obj).get("containerStatuses") or [])),
    "external_address": _external_address,
    "service_ports": lambda obj: _joined(map(_service_port, obj["spec"].get("ports") or [])),
    "node_selector": lambda obj: _labels(obj["spec"]["template"]["spec"].get("nodeSelector")),
    "data_count": lambda obj: len(obj.get("data") or {}) + len(obj.get("binaryData") or {}),
    "access_modes": lambda obj: ",".join(_MODES.get(m, m) for m in obj["spec"].get("accessModes") or []),
    "involved_object": _involved_object,
    "ready_replicas": lambda obj: f"{_status(obj).get('readyReplicas', 0)}/{obj['spec'].get('replicas', 1)}",
    "request_condition": _request_condition,
    "created": lambda obj: obj["metadata"]["creationTimestamp"],
}


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


@dataclass(frozen=True)
class Form:
    """What the Accept header asks for.

    Args:
        kind: "Table", "PartialObjectMetadata", "PartialObjectMetadataList", or "" (the objects themselves).
        include: of a table's rows.
        version: apiVersion of a table or of metadata.
    """

    kind: str = ""
    include: str = ""
    version: str = "meta.k8s.io/v1"

    @classmethod
    def of(cls, accept: str, include: str = "") -> Form:
        """The first form in the header that is known here; plain objects if there is none."""
        for part in accept.split(","):
            options = dict(option.strip().split("=", 1) for option in part.split(";") if "=" in option)
            kind, version = options.get("as", ""), options.get("v", "")
            if kind in _FORMS and version in ("v1", "v1beta1"):
                return cls(kind, include, f"meta.k8s.io/{version}")
        return cls()

    def single(self, resource: Resource, obj: Obj, *, headers: bool = True) -> Obj:
        """An object."""
        if self.kind == "Table":
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return self._table(resource, [obj], metadata, headers=headers)
        return partial(obj, self.version) if self.kind else obj

    def listing(self, resource: Resource, objs: list[Obj], metadata: Obj) -> Obj:
        """A list of objects."""
        if self.kind == "Table":
            return self._table(resource, objs, metadata)
        if self.kind:
            head = {"kind": "PartialObjectMetadataList", "apiVersion": self.version}
            return {**head, "metadata": metadata, "items": [partial(obj, self.version) for obj in objs]}
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        items = objs if resource.custom else [_headless(obj) for obj in objs]
        return {**head, "metadata": metadata, "items": items}

    def _table(self, resource: Resource, objs: list[Obj], metadata: Obj, *, headers: bool = True) -> Obj:
        columns = columns_of(resource)
        head = {"kind": "Table", "apiVersion": self.version, "metadata": metadata}
        rows = [{"cells": [_cell(column, obj) for column in columns], "object": self._row_object(obj)} for obj in objs]
        return {**head, "columnDefinitions": list(map(_header, columns)) if headers else None, "rows": rows}

    def _row_object(self, obj: Obj) -> Obj | None:
        if self.include == "None":
            return None
        return obj if self.include == "Object" else partial(obj, self.version)


def _headless(obj: Obj) -> Obj:
    """Items of a list have no apiVersion and kind of their own, but for custom resources."""
    return {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
