"""Whether etcd is lost, which snapshot comes back, and the actions until everybody works with it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from fluobook.clients.talos import Mode, TalosNode
from fluobook.context import RunContext
from fluobook.errors import PHASE, TALOSCTL, FluobookError, Refused
from fluobook.kubernetes.snapshot import SENTINEL, SYSTEM
from fluobook.params import Node, Platform
from fluobook.params.versions import minor_of
from fluobook.stages.core.cluster import probe_nodes, read_etcd
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.day_two import backups
from fluobook.stages.day_two.backups import Record

NAME = "restore"
WIPE = f"{TALOSCTL} -n ADDRESS reset --graceful=false --reboot --system-labels-to-wipe EPHEMERAL"
WAITS = "Preparing"
"""The state of Talos' service etcd on a control plane without data: it waits for a bootstrap, or for a cluster."""


@dataclass(frozen=True)
class Member:
    """The etcd of a control plane that has its configuration.

    Args:
        state: of Talos' service.
        index: how far its log goes, if it tells.
        members: the names of the members, if there is a quorum.
    """

    state: str
    index: int = 0
    members: frozenset[str] = frozenset()

    @property
    def quorum(self) -> bool:
        """Whether it is part of a quorum: only that can tell the members."""
        return bool(self.members)


@dataclass(frozen=True)
class Wanted:
    """The snapshot that comes back.

    Args:
        name: of the snapshot, or the path of its file.
        sha256: of its database.
        revision: the newest in it.
        taken: when, if that is recorded.
        index: of etcd's log at that time, if that is recorded.
        talos: the version of Talos that it was taken with, if that is recorded.
    """

    name: str
    sha256: str
    revision: int
    taken: str = ""
    index: int = 0
    talos: str = ""


@dataclass(frozen=True)
class Observation:
    """What was read.

    Args:
        now: in UTC.
        wanted: the snapshot; None if there is a quorum and no record of one.
        members: by the control plane's name; one that does not answer, or has no configuration, is not in it.
        workers: those that answer.
        marks: the data of the ConfigMap that names snapshots, None if the API does not answer.
        same: whether the cluster that answers is the one of the snapshot; None if that was not asked.
        missing: the earlier stage that has not run.
    """

    now: dt.datetime
    wanted: Wanted | None = None
    members: Mapping[str, Member] = field(default_factory=dict)
    workers: Sequence[str] = ()
    marks: Mapping[str, str] | None = None
    same: bool | None = None
    missing: str = ""

    @property
    def quorum(self) -> list[str]:
        """The control planes with a quorum."""
        return [name for name, member in self.members.items() if member.quorum]

    @property
    def restored(self) -> bool:
        """Whether the snapshot is back, and known to be the right one."""
        return bool(self.wanted and self.marks and self.marks.get("restored") == self.wanted.sha256)

    @property
    def begun(self) -> bool:
        """Whether the quorum is that of a restore which was interrupted: the log began again, and is still short."""
        newest = max((self.members[name].index for name in self.quorum), default=0)
        return bool(self.wanted and self.quorum and newest < self.wanted.index and self.same is not False)

    @property
    def whole(self) -> bool:
        """Whether there is a quorum that no restore is at work on."""
        return bool(self.quorum) and not self.restored and not self.begun

    @property
    def pending(self) -> list[str]:
        """The workers that have not restarted since; one that joined later has nothing to forget."""
        return [name for name in self.workers if not self.restored or name in pending_of(self.marks)]


def pending_of(marks: Mapping[str, str] | None) -> list[str]:
    """The workers that a restore has still to restart."""
    return (marks or {}).get("pending", "").split()


def read_member(client: TalosNode) -> Member:
    """The etcd of a control plane."""
    state = next((service.state for service in client.services() if service.id == "etcd"), "")
    report = read_etcd(client)
    if report.status is None:
        return Member(state)
    return Member(state, report.status.index, frozenset(member.hostname for member in report.members))


def observe(context: RunContext) -> Observation:
    """Ask every node. The snapshot is read only if it is needed; the API is asked only if there is a quorum.

    Raises:
        Refused: etcd is lost, and the snapshot is damaged, another cluster's, or not there.
    """
    now = dt.datetime.now(dt.UTC)
    if not context.secrets.has_bundle():
        return Observation(now, missing="apply-talos-config")
    platform = context.platform
    probes = probe_nodes(context)
    configured = [node for node in platform.nodes if probes[node.name].mode is Mode.CONFIGURED]
    planes = [node for node in configured if node.role == "controlplane"]
    read = in_parallel(lambda node: read_member(context.talos.client(node)), planes, width=len(planes) or 1)
    members = dict(zip([node.name for node in planes], read, strict=True))
    workers = [node.name for node in configured if node.role == "worker"]
    observation = Observation(now, None, members, workers)
    if not observation.quorum:
        return replace(observation, wanted=_wanted(backups.read(context, platform.etcd_snapshots.restore)))
    wanted: Wanted | None = None
    try:
        record = backups.find(context, platform.etcd_snapshots.restore).record
    except Refused:  # there is none
        pass
    else:
        wanted = of_record(record) if record else _wanted(backups.read(context, platform.etcd_snapshots.restore))
    marks, uid = None, ""
    with suppress(FluobookError):  # the API does not answer
        marks, uid = read_marks(context)
    observation = replace(observation, wanted=wanted, marks=marks)
    if marks and set(pending_of(marks)) & set(workers) and not observation.begun:
        restored = marks["restored"]  # a snapshot that was taken since, or deleted, does not end that restore
        return replace(observation, wanted=Wanted(restored[:12], restored, 0), same=True)
    if wanted is None or observation.restored or not observation.begun:
        return replace(observation, same=observation.restored or None)
    opened = backups.read(context, wanted.name)
    return replace(observation, same=opened.content.has(SYSTEM, uid) if uid else None)


def of_record(record: Record) -> Wanted:
    """The snapshot of a record."""
    return Wanted(record.name, record.sha256, record.revision, record.taken, record.index, record.talos)


def _wanted(opened: backups.Opened) -> Wanted:
    if opened.record:
        return of_record(opened.record)
    return Wanted(opened.title, opened.content.sha256, opened.content.revision)


def read_marks(context: RunContext) -> tuple[Mapping[str, str], str]:
    """What the cluster says of its snapshots, and the uid of kube-system."""
    system = context.kube().get("v1", "Namespace", "kube-system")
    marks = context.kube().find("v1", "ConfigMap", SENTINEL, "kube-system")
    return (marks or {}).get("data") or {}, str(system["metadata"]["uid"])


def plan(platform: Platform, observation: Observation) -> Plan:
    """What is left to do until everybody works with the snapshot.

    Raises:
        Refused: nothing is lost, or the control planes are not ready for it.
    """
    planes, wanted = platform.control_planes, observation.wanted
    if observation.missing:
        return Plan(NAME, (), 0, platform.digest_data(), waits_for=observation.missing)
    if observation.whole:
        _require_no_wish(platform, observation)
    if wanted is None or observation.whole:
        note = f"etcd has a quorum ({', '.join(observation.quorum)}): there is nothing to restore"
        return Plan(NAME, (), len(planes), platform.digest_data(), notes=(note,))
    if not observation.quorum:
        _require_ready(platform, observation, wanted)
    actions: list[Action] = []
    if not observation.restored:
        actions += _recovery(platform, observation, wanted)
    known = {name for member in observation.members.values() for name in member.members}
    before = tuple(action.id for action in actions if action.verb == "bootstrap")
    joins = [_join(node, before) for node in planes[1:] if not observation.quorum or node.name not in known]
    actions += joins
    before += tuple(action.id for action in joins)
    for name in observation.pending:
        reason = "what runs there may have seen revisions that will be used again"
        actions.append(
            Action(f"restart {name}", "restart", f"node {name}", "reboot", reason, before, "worker", {"node": name})
        )
        before = (actions[-1].id,)
    return Plan(
        NAME, tuple(actions), len(planes) - len(joins), platform.digest_data(), notes=_notes(observation, actions)
    )


def _require_no_wish(platform: Platform, observation: Observation) -> None:
    """Refuse to go back to a named snapshot while nothing is lost."""
    who, name = ", ".join(observation.quorum), platform.etcd_snapshots.restore
    if observation.same is False:
        raise Refused(
            f"etcd has a quorum ({who}), and its cluster is not the one of the snapshot",
            cause="it was bootstrapped anew, with other objects",
            remedy=f"if nothing in this cluster is needed, wipe each control plane (`{WIPE}`), then run {NAME} again",
        )
    if name:
        raise Refused(
            f"etcd has a quorum ({who}), so nothing is lost that the snapshot {name} could bring back",
            cause="a restore destroys everything that was written since the snapshot",
            remedy=f"fluobook run {PHASE} health; single objects come back from Git, or from a copy of them",
        )


def _require_ready(platform: Platform, observation: Observation, wanted: Wanted) -> None:
    silent = [node.name for node in platform.control_planes if node.name not in observation.members]
    if silent:
        raise Refused(
            f"no answer from {', '.join(silent)}: every control plane must answer before a restore",
            cause="all control planes restart with an empty etcd: one that comes back later would bring its old etcd",
            remedy=f"start them, or make them again: fluobook run {PHASE} --only create-vms --only apply-talos-config",
        )
    runs = str(platform.versions.talos)
    if wanted.talos and minor_of(wanted.talos.removeprefix("v")) != minor_of(runs):
        raise Refused(
            f"the snapshot was taken with Talos {wanted.talos}, and the params have {runs}",
            cause="etcd restores a snapshot of its own minor version only",
            remedy=f"set versions.talos to {wanted.talos.removeprefix('v')}, make the control planes anew (destroy "
            "their VMs, then fluobook run "
            f"{PHASE} --only create-vms --only apply-talos-config), restore, then upgrade Talos",
        )


def _recovery(platform: Platform, observation: Observation, wanted: Wanted) -> list[Action]:
    planes = platform.control_planes
    first = observation.quorum[0] if observation.quorum else planes[0].name
    actions = []
    for node in planes if not observation.quorum else ():
        state = observation.members[node.name].state
        if state != WAITS:
            reason = f"etcd has data and no quorum (it is {state or 'not there'})"
            title = f"node {node.name}"
            actions.append(
                Action(
                    f"reset {node.name}", "reset", title, "wipe EPHEMERAL, restart", reason, data={"node": node.name}
                )
            )
    data = {"node": first, "snapshot": wanted.name, "sha256": wanted.sha256}
    resets = tuple(action.id for action in actions)
    detail = f"revision {wanted.revision}, {wanted.sha256[:12]}"
    return [
        *actions,
        Action(
            "recover etcd",
            "bootstrap",
            f"etcd on {first}",
            detail,
            f"from {wanted.name}",
            resets,
            data=data,
            destroys=(platform.cluster.name,),
        ),
    ]


def _join(node: Node, before: tuple[str, ...]) -> Action:
    title = f"node {node.name}"
    return Action(f"join {node.name}", "join", title, "becomes a member", "", before, data={"node": node.name})


def _notes(observation: Observation, actions: Sequence[Action]) -> tuple[str, ...]:
    wanted, notes = observation.wanted, []
    if wanted and any(action.destroys for action in actions):
        age = _age(wanted.taken, observation.now)
        notes.append(f"lost: everything that was written after the snapshot, {age}")
        notes.append("Argo CD applies Git to the restored cluster as soon as it runs")
    if restarts := [action.data["node"] for action in actions if action.verb == "restart"]:
        notes.append(f"interrupted, one after the other: {', '.join(restarts)}")
    return tuple(notes)


def _age(taken: str, now: dt.datetime) -> str:
    if not taken:
        return "whose time is not recorded"
    hours = (now - dt.datetime.fromisoformat(taken)).total_seconds() / 3600
    return f"taken {taken} ({hours:.1f} hours ago)"
