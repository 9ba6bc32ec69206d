"""Nodes, certificate requests, Applications and flows as tables. Pure.

A table that is not live contains no ages, ports or random names, so that it is the same in every run.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from fluobook.display.table import Cell, Picture, Table
from fluobook.kubernetes import policies
from fluobook.stages.approve_csrs import SIGNER, evaluate, state_of
from fluobook.stages.core.readiness import has_condition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fluobook.clients.hubble import Endpoint, Flow
    from fluobook.kubernetes.policies import Policies
    from fluobook.params import Platform

    Obj = Mapping[str, Any]

WAVE = "argocd.argoproj.io/sync-wave"
FORWARDED = "FORWARDED"
DROPPED = "DROPPED"
SHOWN = 400
"""Paths of flows in a table at most."""
RECENT = 200
"""Flows in the stream."""
MOST_PATHS = 5000
"""Paths that are counted one by one; flows of any others are counted together."""
WINDOW = 6
"""Seconds over which a rate is taken."""

ARROWS = 40
"""Arrows of the picture of who talks to whom, at most."""

_PATH = ["verdict", "from", "to", "port", "decided by"]
_TALOS = re.compile(r"Talos \((.+)\)")
_UNHEALTHY = ("Degraded", "Missing", "Progressing", "Suspended")

_TONES = dict.fromkeys(("Issued", "Healthy", "Synced", FORWARDED), "ok")
_TONES |= dict.fromkeys(("Approved", "Pending", "Progressing", "Suspended", "OutOfSync"), "wait")
_TONES |= dict.fromkeys(("Denied", "Failed", DROPPED), "bad")

_NAME_LABELS = ("app.kubernetes.io/name", "k8s-app", "app")
_HASH = "[bcdfghjklmnpqrstvwxz2456789]"
_SUFFIX = re.compile(rf"(-{_HASH}{{6,10}})?-{_HASH}{{5}}$|-\d+$")
"""The random end of a pod's name."""


class Made:
    """The rows that were made of objects; an object that stays the same is read once.

    Args:
        make: makes the row of an object.
    """

    def __init__(self, make: Callable[[Obj], list[Any]]) -> None:
        self._make = make
        self._rows: dict[tuple[str, str], tuple[str | None, list[Any]]] = {}

    def rows(self, objects: Iterable[Obj], *, seconds: float = math.inf) -> tuple[list[list[Any]], int]:
        """The rows of these objects, and how many objects are not read yet because the seconds were over."""
        until, rows, unread = time.thread_time() + seconds, {}, 0
        for obj in objects:
            metadata = obj["metadata"]
            key, version = (metadata.get("namespace", ""), metadata["name"]), metadata.get("resourceVersion")
            known = self._rows.get(key)
            if known is None or version is None or known[0] != version:
                if time.thread_time() <= until:
                    known = version, self._make(obj)
                else:
                    unread += 1
            if known is not None:
                rows[key] = known
        self._rows = rows
        return [row for _, row in rows.values()], unread


def _notes(*notes: str) -> str:
    return "\n".join(filter(None, notes))


class Nodes:
    """The declared nodes, and any others.

    Args:
        platform: declares nodes.
        machines: what Talos and the kubelet of each node report: its stage, and the days that its serving
            certificate is still valid.
    """

    def __init__(self, platform: Platform, machines: Mapping[str, Machine] | None = None) -> None:
        self._platform = platform
        self._machines = {} if machines is None else machines  # filled later

    def __call__(self, objects: Iterable[Obj], *, live: bool = False, seconds: float = math.inf) -> Table:  # noqa: ARG002
        """The table; when live, with what depends on time."""
        present = {node["metadata"]["name"]: node for node in objects}
        names = [node.name for node in self._platform.nodes]
        rows = [self._row(name, present.get(name), declared=True) for name in names]
        rows += [self._row(name, present[name], declared=False) for name in sorted(present.keys() - set(names))]
        columns = ["node", "role", "state", "stage", "pressure", "Talos", "Kubernetes", "address"]
        if live:
            for row in rows:
                row += [self._machine(row[0]).days, created(present.get(row[0]))]
            columns += ["certificate days", "age"]
        ready = sum(has_condition(present[name], "Ready") for name in names if name in present)
        return Table(
            "nodes",
            columns,
            rows,
            note=f"{ready} of {len(names)} Ready",
            limit=max(100, len(names)),
            key=("node",),
            sort=("role", "node"),
            pickers=("state", "stage", "pressure"),
            optional=("age", "role", "Kubernetes", "address", "Talos", "certificate days", "pressure"),
        )

    def _machine(self, name: str) -> Machine:
        return self._machines.get(name, Machine("", None))

    def _row(self, name: str, node: Obj | None, *, declared: bool) -> list[Any]:
        stage = self._machine(name).stage
        shown = Cell(stage, "ok" if stage == "running" else "wait") if stage else ""
        if node is None:
            return [name, "", Cell("absent", "bad"), shown, "", "", "", ""]
        status, ready = node.get("status") or {}, has_condition(node, "Ready")
        info = status.get("nodeInfo") or {}
        addresses = [a["address"] for a in status.get("addresses") or () if a["type"] == "InternalIP"]
        remarks = ["cordoned"] if (node.get("spec") or {}).get("unschedulable") else []
        remarks += [] if declared else ["not in the params"]
        text = ", ".join(["Ready" if ready else "not Ready", *remarks])
        state = Cell(text, ("wait" if remarks else "ok") if ready else "bad")
        labels = node["metadata"].get("labels", {})
        role = "control plane" if "node-role.kubernetes.io/control-plane" in labels else "worker"
        types = [c["type"] for c in status.get("conditions") or () if c.get("status") == "True"]
        pressures = [kind.removesuffix("Pressure") for kind in types if kind.endswith(("Pressure", "Unavailable"))]
        pressure = Cell(", ".join(pressures), "bad") if pressures else "none"
        system = info.get("osImage", "")
        talos = version[1] if (version := _TALOS.search(system)) else system
        return [name, role, state, shown, pressure, talos, info.get("kubeletVersion", ""), " ".join(addresses)]


class Csrs:
    """Certificate signing requests, evaluated as by stage 4; equal ones are one row while nobody watches."""

    def __init__(self, platform: Platform) -> None:
        self._declared = {node.name: f"{node.name} {node.address}" for node in platform.nodes}
        self._platform = platform
        self._made = Made(self._row)

    def __call__(self, objects: Iterable[Obj], *, live: bool = False, seconds: float = math.inf) -> Table:
        """The table; when live, with names and ages."""
        requests = sorted(objects, key=lambda csr: (str(csr["spec"].get("username", "")), csr["metadata"]["name"]))
        rows, unread = self._made.rows(requests, seconds=seconds)
        columns = ["name", "requested by", "signer", "requested", "declared", "state", "reason", "age"]
        if not live:
            columns, rows = columns[1:-1], list({tuple(map(str, row[1:-1])): row[1:-1] for row in rows}.values())
        states = Counter(map(state_of, requests))
        others = ", ".join(f"{number} {state.lower()}" for state, number in states.items() if state != "Pending")
        counts = f"{states['Pending']} pending" + (f", {others}" if live and others else "")
        return Table(
            "certificate requests",
            columns,
            rows,
            note=_notes(counts, f"{unread} are being read" if unread else ""),
            key=("name",) if live else (),
            sort=("-state", "requested by", "name"),
            pickers=("state", "signer", "reason"),
            optional=("age", "signer", "declared", "requested", "reason"),
            details=("name",),
        )

    def _row(self, csr: Obj) -> list[Any]:
        state, signer = state_of(csr), str(csr["spec"].get("signerName", ""))
        requestor, names, declared, reason = str(csr["spec"].get("username", "")), "", "", ""
        if signer == SIGNER:
            request = evaluate(csr, self._platform)
            names, declared = " ".join([*request.dns, *request.ips]), self._declared.get(request.node, "no node")
            reason = "matches the params" if request.matches else "; ".join(request.problems)
        elif requestor.startswith("system:bootstrap:"):
            requestor = "a bootstrap token"  # its id is a part of a secret
        shown = Cell(state, _TONES.get(state, ""))
        name = csr["metadata"]["name"]
        return [name, requestor, signer.rpartition("/")[2], names, declared, shown, reason, created(csr)]


class Applications:
    """Argo CD's Applications by wave, the root first; when live, with what each one waits for."""

    def __init__(self) -> None:
        self._made = Made(_application)

    def __call__(self, objects: Iterable[Obj], *, live: bool = False, seconds: float = math.inf) -> Table:  # noqa: ARG002
        """The table."""
        ordered = sorted(objects, key=_wave_and_name)
        rows, _ = self._made.rows(ordered)
        columns = ["wave", "application", "project", "source", "revision", "sync", "health", "operation"]
        columns += ["since", "waits for"] if live else []
        healthy = sum(map(is_healthy, ordered))
        unhealthy = [app for app in ordered if _wave(app) and not is_healthy(app)] if live else []
        holding = [app for app in unhealthy if _wave(app) == _wave(unhealthy[0])]
        waits = [waiting_for(app, holding) for app in ordered] if live else [""] * len(rows)
        rows = [[*row, wait] if live else row[:-1] for row, wait in zip(rows, waits, strict=False)]
        return Table(
            "Argo CD Applications",
            columns,
            rows,
            note=f"{healthy} of {len(ordered)} Synced and Healthy",
            key=("application",),
            sort=("wave", "application"),
            pickers=("project", "sync", "health", "operation"),
            optional=("project", "operation", "source", "revision", "since", "waits for"),
        )


def waves_picture(objects: Iterable[Obj]) -> Picture:
    """The waves in their order, with the Applications of each and their health."""
    waves: dict[str, list[Obj]] = {}
    for app in sorted(objects, key=_wave_and_name):
        waves.setdefault(_wave(app) or "root", []).append(app)
    lines, text = ["flowchart LR"], []
    for n, (wave, apps) in enumerate(waves.items()):
        names = [("" if is_healthy(app) else "✗ ") + app["metadata"]["name"] for app in apps]
        label = "<br>".join(name.replace('"', "'") for name in names)
        title = wave if wave == "root" else f"wave {wave}"
        lines += [f'w{n}["{title}<br>{label}"]', *([f"w{n - 1} --> w{n}"] if n else [])]
        text.append(f"{wave}: {', '.join(names)}")
    return Picture("waves\n" + "\n".join(text), "\n  ".join(lines))


def traffic_picture(counts: Mapping[FlowPath, int]) -> Picture:
    """Who talks to whom: an arrow for each pair of namespaces, with the number of flows; dotted if any is dropped."""
    pairs: Counter[tuple[str, str]] = Counter()
    dropped: Counter[tuple[str, str]] = Counter()
    for path, number in counts.items():
        pair = path.source.partition("/")[0], path.destination.partition("/")[0]
        pairs[pair] += number
        dropped[pair] += number * (path.verdict == DROPPED)
    busiest = sorted(pair for pair, _ in pairs.most_common(ARROWS))
    ids = {name: f"n{i}" for i, name in enumerate(sorted({name for pair in busiest for name in pair}))}
    lines = ["flowchart LR", *(f'{ids[name]}["{name}"]' for name in ids)]
    text = ["who talks to whom"]
    for source, target in busiest:
        number, lost = pairs[source, target], dropped[source, target]
        label = f"{number}, {lost} dropped" if lost else str(number)
        lines.append(f'{ids[source]} {"-." if lost else "--"} "{label}" {".->" if lost else "-->"} {ids[target]}')
        text.append(f"{source} → {target}: {label}")
    return Picture("\n".join(text), "\n  ".join(lines))


def _wave(app: Obj) -> str:
    return str((app["metadata"].get("annotations") or {}).get(WAVE, ""))


def _wave_and_name(app: Obj) -> tuple[bool, int, str]:
    """The order of Applications: the root, which has no wave, before all others."""
    wave = _wave(app)
    return bool(wave), int(wave or 0), app["metadata"]["name"]


def _application(app: Obj) -> list[Any]:
    spec, status = app["spec"], app.get("status") or {}
    operation, wave = status.get("operationState") or {}, _wave(app)
    source, (sync, health) = spec.get("source") or {}, status_of(app)
    times = [(status.get("health") or {}).get("lastTransitionTime"), operation.get("finishedAt")]
    changed = next(filter(None, [*times, operation.get("startedAt")]), None)
    return [
        int(wave) if wave else None,
        app["metadata"]["name"],
        spec.get("project", ""),
        source.get("chart") or source.get("path", ""),
        str(source.get("targetRevision", "")),
        Cell(sync, _TONES.get(sync, "bad")),
        Cell(health, _TONES.get(health, "bad")),
        operation.get("phase", ""),
        datetime.fromisoformat(changed).astimezone(UTC) if changed else None,
    ]


def status_of(app: Obj) -> tuple[str, str]:
    """Sync and health status; "Unknown" before Argo CD's first comparison."""
    status = app.get("status") or {}
    sync = (status.get("sync") or {}).get("status") or "Unknown"
    return sync, (status.get("health") or {}).get("status") or "Unknown"


def is_healthy(app: Obj) -> bool:
    """Whether the Application is Synced and Healthy."""
    return status_of(app) == ("Synced", "Healthy")


def waiting_for(app: Obj, holding: Sequence[Obj]) -> str:
    """What an Application that is not Synced and Healthy waits for, as far as its status and the waves say it.

    Args:
        app: the Application.
        holding: those of the first wave that is not Synced and Healthy; later waves wait for them.
    """
    if is_healthy(app):
        return ""
    status = app.get("status") or {}
    messages = [str(c.get("message", "")) for c in status.get("conditions") or () if "Error" in str(c.get("type"))]
    operation = status.get("operationState") or {}
    if operation.get("phase") != "Succeeded":
        messages.append(str(operation.get("message", "")))
    resources = [r for r in status.get("resources") or () if (r.get("health") or {}).get("status") in _UNHEALTHY]
    messages.append(", ".join(f"{r['kind']} {r['name']}: {r['health']['status']}" for r in resources[:3]))
    if holding and _wave(app) and int(_wave(holding[0])) < int(_wave(app)):
        messages.append(f"wave {_wave(holding[0])}: {', '.join(a['metadata']['name'] for a in holding[:3])}")
    return next(filter(None, messages), "")[:200]


def created(obj: Obj | None) -> datetime | None:
    """When an object was created."""
    moment = (obj or {}).get("metadata", {}).get("creationTimestamp")
    return datetime.fromisoformat(moment).astimezone(UTC) if moment else None


class Machine(NamedTuple):
    """What a node's Talos and kubelet report: the stage, and the days that the serving certificate is still valid."""

    stage: str
    days: int | None


class FlowPath(NamedTuple):
    """Flows are counted for each verdict, source, destination and port."""

    verdict: str
    source: str
    destination: str
    port: str

    @property
    def namespace(self) -> str:
        """The namespace of the destination, else of the source."""
        ends = (end.partition("/") for end in (self.destination, self.source))
        return next((namespace for namespace, _, name in ends if name), "")


class Tally:
    """Counts flows; one thread adds, others read. Its memory is bounded.

    Args:
        decide: names the policies that decided about a dropped flow, and whether the drop is expected.
    """

    def __init__(self, decide: Callable[[Flow], tuple[str, bool]] = lambda flow: (flow.drop_reason, False)) -> None:
        self._decide = decide
        self._counts: Counter[FlowPath] = Counter()
        self._dropped: dict[FlowPath, Flow] = {}
        self._decisions: dict[FlowPath, tuple[str, bool]] = {}
        self._recent: deque[tuple[Flow, FlowPath]] = deque(maxlen=RECENT)
        self._history: deque[tuple[float, dict[FlowPath, int]]] = deque(maxlen=WINDOW)
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
            if path not in self._counts:
                if len(self._counts) >= MOST_PATHS:
                    path = FlowPath(flow.verdict, "others", "others", "")
                elif flow.verdict == DROPPED:
                    self._dropped[path] = flow
            self._counts[path] += 1
            self._recent.append((flow, path))

    def _workload(self, end: Endpoint) -> str:
        """As `workload`; a pod's labels are read once, since they name the same workload in every flow."""
        if not end.pod:
            return workload(end)
        pod = end.namespace, end.pod
        if pod not in self._workloads:
            if len(self._workloads) >= MOST_PATHS:
                self._workloads.clear()
            self._workloads[pod] = workload(end)
        return self._workloads[pod]

    def counts(self) -> dict[FlowPath, int]:
        """The number of flows by path; dropped ones first, then by name."""
        with self._lock:
            counts = dict(self._counts)
        return dict(sorted(counts.items(), key=lambda item: (item[0].verdict == FORWARDED, item[0])))

    def table(self, notes: Sequence[str] = ()) -> Table:
        """The paths by their rate: what is not forwarded, and the busiest others."""
        counts, rates = self.counts(), self._rates()
        busiest = sorted(counts, key=lambda path: (-rates.get(path, 0), -counts[path], path))
        forwarded = [path for path in busiest if path.verdict == FORWARDED]
        others = [path for path in busiest if path.verdict != FORWARDED]
        shown = [*others[: SHOWN // 2], *forwarded[: SHOWN // 2]]
        rows = [[*self._cells(path), rates.get(path, 0.0), counts[path], path.namespace] for path in shown]
        hidden = len(counts) - len(shown)
        note = _notes(
            f"+ {hidden} more paths" if hidden else "",
            f"{sum(counts.values())} flows, {sum(counts[path] for path in others)} not forwarded",
            f"{self.lost} lost by the relay" if self.lost else "",
            *notes,
        )
        columns = [*_PATH, "flows/s", "flows", "namespace"]
        return self._described("top talkers", columns, rows, note, key=_PATH[:4], sort=("-flows/s", "-flows"))

    def stream(self, notes: Sequence[str] = ()) -> Table:
        """The latest flows."""
        with self._lock:
            recent = list(self._recent)
        rows = [[flow.time, *self._cells(path), path.namespace, flow.uuid] for flow, path in recent]
        note = _notes(f"the latest {len(rows)} of {sum(self.counts().values())} flows", *notes)
        columns = ["time", *_PATH, "namespace", "id"]
        return self._described("flows", columns, rows, note, key=("id",), sort=("time",))

    def _described(self, title: str, columns: Sequence[str], rows: list[list[Any]], note: str, **order: Any) -> Table:
        return Table(
            title,
            columns,
            rows,
            note,
            pickers=("verdict", "namespace"),
            optional=("decided by", "flows", "port"),
            details=("namespace", "id"),
            **order,
        )

    def _cells(self, path: FlowPath) -> list[Any]:
        verdict, decision = Cell(path.verdict, _TONES.get(path.verdict, "wait")), ""
        if path in self._dropped:
            if path not in self._decisions:
                self._decisions[path] = self._decide(self._dropped[path])
            decision, expected = self._decisions[path]
            verdict = Cell(f"{path.verdict}, expected", "same") if expected else verdict
        return [verdict, path.source, path.destination, path.port, decision]

    def _rates(self) -> dict[FlowPath, float]:
        """Flows a second of each path over the last seconds."""
        now = time.monotonic()
        with self._lock:
            if not self._history or now - self._history[-1][0] >= 1:
                self._history.append((now, dict(self._counts)))
            since, before = self._history[0]
            if now - since < 1:
                return {}
            return {
                path: round((number - before.get(path, 0)) / (now - since), 1) for path, number in self._counts.items()
            }


def decision(tree: Policies[Any], flow: Flow) -> tuple[str, bool]:
    """The policies that decided about a dropped flow, and whether the platform's tree expects the drop."""
    named = ", ".join(flow.denied_by)
    if flow.drop_reason and flow.drop_reason != "POLICY_DENIED":
        return flow.drop_reason, False
    verdict = tree.verdict(
        _policy_end(flow.source), _policy_end(flow.destination), flow.destination_port, flow.protocol
    )
    deciding = ", ".join(f"{policy.namespace}/{policy.name}" for policy in verdict.policies)
    if verdict.allowed:
        return named or "unknown: the tree's policies allow it", False
    return named or deciding, True


def _policy_end(end: Endpoint) -> policies.Endpoint:
    labels = dict(label.removeprefix("k8s:").partition("=")[::2] for label in end.labels if label.startswith("k8s:"))
    reserved = next((label.removeprefix("reserved:") for label in end.labels if label.startswith("reserved:")), "world")
    entity = "" if end.pod else "world" if reserved == "world" else "remote-node"
    return policies.Endpoint(end.pod or end.name, end.namespace, labels, entity=entity, address=end.ip)


def workload(end: Endpoint) -> str:
    """The workload at one end of a flow: its name label, else its pod's name without the random part."""
    if not end.pod:
        return end.name.removeprefix("reserved:")
    labels = dict(label.removeprefix("k8s:").partition("=")[::2] for label in end.labels)
    name = next((labels[key] for key in _NAME_LABELS if labels.get(key)), _SUFFIX.sub("", end.pod))
    return f"{end.namespace}/{name}"
