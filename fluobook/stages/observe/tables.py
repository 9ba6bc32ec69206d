"""Nodes, certificate requests, Applications and flows as tables. Pure.

Without `now`, a table contains no ages, ports or random names, so that it is the same in every run.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from fluobook.display.table import Cell, Table
from fluobook.stages.approve_csrs import SIGNER, evaluate, state_of
from fluobook.stages.core.readiness import has_condition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fluobook.clients.hubble import Endpoint, Flow
    from fluobook.params import Platform

    Obj = Mapping[str, Any]

WAVE = "argocd.argoproj.io/sync-wave"
FORWARDED = "FORWARDED"
SHOWN = 40
"""Rows of flows at most."""

_TONES = dict.fromkeys(("Issued", "Healthy", "Synced", FORWARDED), "ok")
_TONES |= dict.fromkeys(("Approved", "Pending", "Progressing", "Suspended", "OutOfSync"), "wait")
_TONES |= dict.fromkeys(("Denied", "Failed", "DROPPED"), "bad")

_NAME_LABELS = ("app.kubernetes.io/name", "k8s-app", "app")
_HASH = "[bcdfghjklmnpqrstvwxz2456789]"
_SUFFIX = re.compile(rf"(-{_HASH}{{6,10}})?-{_HASH}{{5}}$|-\d+$")
"""The random end of a pod's name."""


def nodes(platform: Platform, objects: Iterable[Obj], *, now: datetime | None = None) -> Table:
    """The declared nodes, and any others; with ages if `now` is given."""
    live = {node["metadata"]["name"]: node for node in objects}
    names = [node.name for node in platform.nodes]
    rows = [_node(name, live.get(name), declared=True) for name in names]
    rows += [_node(name, live[name], declared=False) for name in sorted(live.keys() - set(names))]
    columns = ["node", "role", "state", "address", "kubelet", "system"]
    if now:
        rows = [[*row, age(live.get(row[0]), now)] for row in rows]
        columns.append("age")
    ready = sum(has_condition(live[name], "Ready") for name in names if name in live)
    return Table("nodes", columns, rows, note=f"{ready} of {len(names)} Ready")


def _node(name: str, node: Obj | None, *, declared: bool) -> list[Any]:
    if node is None:
        return [name, "", Cell("absent", "bad"), "", "", ""]
    status, ready = node.get("status") or {}, has_condition(node, "Ready")
    info = status.get("nodeInfo") or {}
    addresses = [a["address"] for a in status.get("addresses") or () if a["type"] == "InternalIP"]
    remarks = ["cordoned"] if (node.get("spec") or {}).get("unschedulable") else []
    remarks += [] if declared else ["not in the params"]
    state = Cell(
        ", ".join(["Ready" if ready else "not Ready", *remarks]), ("wait" if remarks else "ok") if ready else "bad"
    )
    labels = node["metadata"].get("labels", {})
    role = "control plane" if "node-role.kubernetes.io/control-plane" in labels else "worker"
    return [name, role, state, " ".join(addresses), info.get("kubeletVersion", ""), info.get("osImage", "")]


def csrs(platform: Platform, objects: Iterable[Obj], *, now: datetime | None = None) -> Table:
    """Certificate requests, evaluated as by stage 4; without `now`, equal ones are one row."""
    requests = sorted(objects, key=lambda csr: (str(csr["spec"].get("username", "")), csr["metadata"]["name"]))
    rows = [_csr(platform, csr) for csr in requests]
    columns = ["requested by", "signer", "for", "state", "evaluation"]
    if now:
        rows = [[csr["metadata"]["name"], *row, age(csr, now)] for csr, row in zip(requests, rows, strict=True)]
        columns = ["name", *columns, "age"]
    else:
        rows = list({tuple(map(str, row)): row for row in rows}.values())
    pending = sum(state_of(csr) == "Pending" for csr in requests)
    return Table("certificate requests", columns, rows, note=f"{pending} pending")


def _csr(platform: Platform, csr: Obj) -> list[Any]:
    state, signer = state_of(csr), str(csr["spec"].get("signerName", ""))
    requestor, names, evaluation = str(csr["spec"].get("username", "")), "", ""
    if signer == SIGNER:
        request = evaluate(csr, platform)
        names = " ".join([*request.dns, *request.ips])
        evaluation = "matches the params" if request.matches else "; ".join(request.problems)
    elif requestor.startswith("system:bootstrap:"):
        requestor = "a bootstrap token"  # its id is a part of a secret
    return [requestor, signer.rpartition("/")[2], names, Cell(state, _TONES.get(state, "")), evaluation]


def applications(objects: Iterable[Obj], *, now: datetime | None = None) -> Table:
    """Argo CD's Applications by wave, the root first; with Argo CD's message if `now` is given."""
    ordered = sorted(objects, key=_wave_and_name)
    rows = [[*_application(app), *([_message(app)] if now else [])] for app in ordered]
    columns = ["wave", "application", "project", "source", "sync", "health", "operation", *(["message"] if now else [])]
    healthy = sum(is_healthy(app) for app in ordered)
    return Table("Argo CD Applications", columns, rows, note=f"{healthy} of {len(ordered)} Synced and Healthy")


def _wave(app: Obj) -> str:
    return str((app["metadata"].get("annotations") or {}).get(WAVE, ""))


def _wave_and_name(app: Obj) -> tuple[bool, int, str]:
    """The order of Applications: the root, which has no wave, before all others."""
    wave = _wave(app)
    return bool(wave), int(wave or 0), app["metadata"]["name"]


def _application(app: Obj) -> list[Any]:
    spec, operation = app["spec"], (app.get("status") or {}).get("operationState") or {}
    source, (sync, health) = spec.get("source") or {}, status_of(app)
    return [
        _wave(app),
        app["metadata"]["name"],
        spec.get("project", ""),
        f"{source.get('chart') or source.get('path', '')} {source.get('targetRevision', '')}".strip(),
        Cell(sync, _TONES.get(sync, "bad")),
        Cell(health, _TONES.get(health, "bad")),
        operation.get("phase", ""),
    ]


def status_of(app: Obj) -> tuple[str, str]:
    """Sync and health status; "Unknown" before Argo CD's first comparison."""
    status = app.get("status") or {}
    sync = (status.get("sync") or {}).get("status") or "Unknown"
    return sync, (status.get("health") or {}).get("status") or "Unknown"


def is_healthy(app: Obj) -> bool:
    """Whether the Application is Synced and Healthy."""
    return status_of(app) == ("Synced", "Healthy")


def _message(app: Obj) -> str:
    status = app.get("status") or {}
    messages = [str(c.get("message", "")) for c in status.get("conditions") or () if "Error" in str(c.get("type"))]
    operation = status.get("operationState") or {}
    if operation.get("phase") != "Succeeded":
        messages.append(str(operation.get("message", "")))
    return next(iter(messages), "")[:120]


def age(obj: Obj | None, now: datetime) -> str:
    """The age of an object: "42s", "7m", "3h", "5d"; "" without one."""
    created = (obj or {}).get("metadata", {}).get("creationTimestamp")
    if not created:
        return ""
    seconds = (now - datetime.fromisoformat(created).astimezone(UTC)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


class FlowPath(NamedTuple):
    """Flows are counted for each verdict, source, destination and port."""

    verdict: str
    source: str
    destination: str
    port: str


class Tally:
    """Counts flows; one thread adds, others read."""

    def __init__(self) -> None:
        self._counts: Counter[FlowPath] = Counter()
        self._workloads: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self.lost = 0

    def add(self, flow: Flow) -> None:
        """Count a flow; replies are left out, as each only mirrors a request."""
        if flow.reply:
            return
        number, protocol = flow.destination_port, flow.protocol
        port = f"{number}/{protocol}" if number else protocol
        path = FlowPath(flow.verdict, self._workload(flow.source), self._workload(flow.destination), port)
        with self._lock:
            self._counts[path] += 1

    def _workload(self, end: Endpoint) -> str:
        """As `workload`; a pod's labels are read once, since they name the same workload in every flow."""
        if not end.pod:
            return workload(end)
        pod = end.namespace, end.pod
        if pod not in self._workloads:
            self._workloads[pod] = workload(end)
        return self._workloads[pod]

    def counts(self) -> dict[FlowPath, int]:
        """The number of flows by path; dropped ones first, then by name."""
        with self._lock:
            counts = dict(self._counts)
        return dict(sorted(counts.items(), key=lambda item: (item[0].verdict == FORWARDED, item[0])))

    def table(self, notes: Sequence[str] = ()) -> Table:
        """The busiest paths: first those that are not forwarded, up to half of the rows, then the others."""
        counts = self.counts()
        busiest = sorted(counts, key=lambda path: (-counts[path], path))
        forwarded = [path for path in busiest if path.verdict == FORWARDED]
        others = [path for path in busiest if path.verdict != FORWARDED]
        shown = [*others[: SHOWN // 2], *forwarded[: SHOWN // 2]]
        rows = [
            [
                Cell(path.verdict, _TONES.get(path.verdict, "wait")),
                path.source,
                path.destination,
                path.port,
                counts[path],
            ]
            for path in shown
        ]
        hidden = len(counts) - len(shown)
        note = [
            f"+ {hidden} more paths" if hidden else "",
            f"{sum(counts.values())} flows, {sum(counts[path] for path in others)} not forwarded",
            f"{self.lost} lost by the relay" if self.lost else "",
        ]
        columns = ["verdict", "from", "to", "port", "flows"]
        return Table("Hubble flows", columns, rows, note="\n".join(filter(None, [*note, *notes])))


def workload(end: Endpoint) -> str:
    """The workload at one end of a flow: its name label, else its pod's name without the random part."""
    if not end.pod:
        return end.name.removeprefix("reserved:")
    labels = dict(label.removeprefix("k8s:").partition("=")[::2] for label in end.labels)
    name = next((labels[key] for key in _NAME_LABELS if labels.get(key)), _SUFFIX.sub("", end.pod))
    return f"{end.namespace}/{name}"
