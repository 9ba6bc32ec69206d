"""Kubernetes objects as tables. Pure; what nobody watches as it changes has no ages, ports or random names in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fluobook.display.table import Cell, Table
from fluobook.stages.approve_csrs.judge import SIGNER, judge, state_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fluobook.params import Platform

    Obj = Mapping[str, Any]

WAVE = "argocd.argoproj.io/sync-wave"
_TONES = {"Issued": "ok", "Approved": "wait", "Pending": "wait", "Denied": "bad", "Failed": "bad"}
_HEALTH = {"Healthy": "ok", "Progressing": "wait", "Suspended": "wait"}
_SYNC = {"Synced": "ok", "OutOfSync": "wait"}


def nodes(platform: Platform, found: Iterable[Obj], *, now: datetime | None = None) -> Table:
    """The declared nodes, and whatever else there is; ages only where `now` is given."""
    there = {node["metadata"]["name"]: node for node in found}
    names = [node.name for node in platform.nodes]
    rows = [_node(name, there.get(name), declared=True) for name in names]
    rows += [_node(name, there[name], declared=False) for name in sorted(there.keys() - set(names))]
    columns = ["node", "role", "state", "address", "kubelet", "system"]
    if now:
        rows = [[*row, age(there.get(row[0]), now)] for row in rows]
        columns.append("age")
    ready = sum(is_ready(there[name]) for name in names if name in there)
    return Table("nodes", columns, rows, note=f"{ready} of {len(names)} Ready")


def _node(name: str, node: Obj | None, *, declared: bool) -> list[Any]:
    if node is None:
        return [name, "", Cell("absent", "bad"), "", "", ""]
    status = node.get("status") or {}
    info = status.get("nodeInfo") or {}
    addresses = [a["address"] for a in status.get("addresses") or () if a["type"] == "InternalIP"]
    words = ["Ready" if is_ready(node) else "not Ready"]
    words += ["cordoned"] if (node.get("spec") or {}).get("unschedulable") else []
    words += [] if declared else ["not in the params"]
    tone = "ok" if words == ["Ready"] else "bad" if "not Ready" in words else "wait"
    return [
        name,
        role_of(node),
        Cell(", ".join(words), tone),
        " ".join(addresses),
        info.get("kubeletVersion", ""),
        info.get("osImage", ""),
    ]


def is_ready(node: Obj) -> bool:
    """Whether the node's condition Ready is True."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def role_of(node: Obj) -> str:
    """The node's role, from its label."""
    return (
        "control plane" if "node-role.kubernetes.io/control-plane" in node["metadata"].get("labels", {}) else "worker"
    )


def csrs(platform: Platform, found: Iterable[Obj], *, now: datetime | None = None) -> Table:
    """Certificate requests, judged as stage 4 judges them; equal ones are one row unless `now` is given."""
    requests = sorted(found, key=lambda csr: (_asked_by(csr), csr["metadata"]["name"]))
    rows = [_csr(platform, csr) for csr in requests]
    columns = ["asked by", "signer", "for", "state", "judgement"]
    if now:
        rows = [[csr["metadata"]["name"], *row, age(csr, now)] for csr, row in zip(requests, rows, strict=True)]
        columns = ["name", *columns, "age"]
    else:
        rows = list({tuple(map(str, row)): row for row in rows}.values())
    pending = sum(state_of(csr) == "Pending" for csr in requests)
    return Table("certificate requests", columns, rows, note=f"{pending} pending")


def _asked_by(csr: Obj) -> str:
    return str(csr["spec"].get("username", ""))


def _csr(platform: Platform, csr: Obj) -> list[Any]:
    state, signer = state_of(csr), str(csr["spec"].get("signerName", ""))
    asked_by, names, told = _asked_by(csr), "", ""
    if signer == SIGNER:
        request = judge(csr, platform)
        names = " ".join([*request.dns, *request.ips])
        told = "fits the params" if request.fits else "; ".join(request.problems)
    elif asked_by.startswith("system:bootstrap:"):
        asked_by = "a bootstrap token"  # whose id is a part of a secret
    return [asked_by, signer.rpartition("/")[2], names, Cell(state, _TONES.get(state, "")), told]


def applications(found: Iterable[Obj], *, now: datetime | None = None) -> Table:
    """Argo CD's Applications by wave; the root first. What keeps one is told only to who watches (`now`)."""
    ordered = sorted(found, key=lambda one: (wave_of(one), one["metadata"]["name"]))
    rows = [[*_application(one), *([_message(one)] if now else [])] for one in ordered]
    columns = ["wave", "application", "project", "source", "sync", "health", "operation", *(["says"] if now else [])]
    well = sum(is_well(one) for one in ordered)
    return Table("Argo CD Applications", columns, rows, note=f"{well} of {len(ordered)} Synced and Healthy")


def _application(one: Obj) -> list[Any]:
    spec, status = one["spec"], one.get("status") or {}
    sync, health = status_of(one)
    wave = (one["metadata"].get("annotations") or {}).get(WAVE, "")
    operation = (status.get("operationState") or {}).get("phase", "")
    return [
        wave,
        one["metadata"]["name"],
        spec.get("project", ""),
        _source(spec.get("source") or {}),
        Cell(sync, _SYNC.get(sync, "bad")),
        Cell(health, _HEALTH.get(health, "bad")),
        operation,
    ]


def status_of(one: Obj) -> tuple[str, str]:
    """Sync and health status, "Unknown" while Argo CD has not looked."""
    status = one.get("status") or {}
    sync = (status.get("sync") or {}).get("status") or "Unknown"
    return sync, (status.get("health") or {}).get("status") or "Unknown"


def is_well(one: Obj) -> bool:
    """Whether the Application is Synced and Healthy."""
    return status_of(one) == ("Synced", "Healthy")


def wave_of(one: Obj) -> tuple[int, int]:
    """What Applications are ordered by: the root, which has no wave, before all others."""
    wave = (one["metadata"].get("annotations") or {}).get(WAVE)
    return (0, 0) if wave is None else (1, int(wave))


def _source(source: Obj) -> str:
    return f"{source.get('chart') or source.get('path', '')} {source.get('targetRevision', '')}".strip()


def _message(one: Obj) -> str:
    status = one.get("status") or {}
    errors = [str(c.get("message", "")) for c in status.get("conditions") or () if "Error" in str(c.get("type"))]
    operation = status.get("operationState") or {}
    told = errors or ([str(operation.get("message", ""))] if operation.get("phase") != "Succeeded" else [])
    return (told[0] if told else "")[:120]


def age(obj: Obj | None, now: datetime) -> str:
    """How old an object is: "42s", "7m", "3h", "5d"."""
    created = (obj or {}).get("metadata", {}).get("creationTimestamp")
    if not created:
        return ""
    seconds = (now - datetime.fromisoformat(created).astimezone(UTC)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def with_note(table: Table, *notes: str) -> Table:
    """The table with more below it."""
    return Table(table.title, table.columns, table.rows, "\n".join(filter(None, (table.note, *notes))), table.limit)


def count(total: int, wrong: Sequence[str]) -> str:
    """Evidence about some of many: "2 of 3; not: worker-2"."""
    return f"{total - len(wrong)} of {total}" + (f"; not: {', '.join(wrong)}" if wrong else "")
