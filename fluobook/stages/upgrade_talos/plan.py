"""What runs, what would keep a drain from ending, and the actions that bring every node to the wanted version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fluobook.clients.talos.resources import EXTENSIONS
from fluobook.context import RunContext
from fluobook.errors import FluobookError, Refused
from fluobook.files import read_text
from fluobook.machine.schematic import Image, image_of
from fluobook.params import Node, Platform
from fluobook.stages.apply_talos_config.plan import step_problem
from fluobook.stages.core import drain
from fluobook.stages.core.canary import Longhorn, read_longhorn
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.drain import gate_action, node_action, refuse_endless
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan

NAME = "upgrade-talos"


@dataclass(frozen=True)
class Running:
    """What a node runs.

    Args:
        version: of Talos, such as "v1.13.9".
        schematic: of its image; "" if it does not tell.
        leads: whether its member of etcd is the leader.
    """

    version: str
    schematic: str = ""
    leads: bool = False

    def installed(self, image: Image) -> bool:
        """Whether that is the image in its version, with its extensions."""
        return self.version == f"v{image.version}" and self.schematic in ("", image.schematic)


@dataclass(frozen=True)
class Observation:
    """What was read.

    Args:
        image: the wanted image.
        missing: what an earlier stage has not done.
        running: by the node's name; a node that does not answer is not in it.
        cordoned: the nodes that this runbook cordoned.
        blockers: by the node's name what would keep its drain from ending.
        offered: the versions that the Image Factory builds.
        longhorn: where Longhorn runs, on whose nodes an attached volume is proved.
    """

    image: Image
    missing: Missing | None = None
    running: Mapping[str, Running] = field(default_factory=dict)
    cordoned: frozenset[str] = frozenset()
    blockers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    offered: frozenset[str] = frozenset()
    longhorn: Longhorn = field(default_factory=Longhorn)

    def is_current(self, node: Node) -> bool:
        """Whether a node runs the wanted image."""
        runs = self.running.get(node.name)
        return runs is not None and runs.installed(self.image)


def read_running(context: RunContext, node: Node) -> Running | None:
    """What a node runs; None if it does not answer."""
    client = context.talos.client(node)
    try:
        names = [(e.spec.get("metadata") or {}) for e in client.list(EXTENSIONS)]
        schematic = next((str(m.get("version")) for m in names if m.get("name") == "schematic"), "")
        status = client.etcd_status() if node.role == "controlplane" else None
        return Running(client.version().tag, schematic, status is not None and status.leader == status.id)
    except FluobookError:
        return None


def wanted_image(context: RunContext) -> Image:
    """The image of the params and the schematic."""
    return image_of(read_text(context.root / "talos" / "schematic.yaml"), context.platform.versions.talos)


def observe(context: RunContext) -> Observation:
    """Ask every node, the cluster and the Image Factory."""
    platform, image = context.platform, wanted_image(context)
    kube = api(context)
    if isinstance(kube, Missing):
        return Observation(image, kube)
    answers = in_parallel(lambda node: read_running(context, node), platform.nodes, width=len(platform.nodes))
    running = {n.name: runs for n, runs in zip(platform.nodes, answers, strict=True) if runs}
    cordoned = {n["metadata"]["name"] for n in kube.list("v1", "Node") if drain.cordoned_by(n) == NAME}
    found = Observation(image, None, running, frozenset(cordoned), longhorn=read_longhorn(kube))
    if all(found.is_current(node) for node in platform.nodes):
        return found
    load, seconds = drain.read_load(kube), platform.deadlines.drain
    blocked = {n.name: tuple(drain.blockers(n.name, load, seconds=seconds)) for n in platform.nodes}
    offered = frozenset(version.removeprefix("v") for version in context.factory.versions())
    return replace(found, blockers=blocked, offered=offered)


def plan(platform: Platform, observation: Observation) -> Plan:
    """The actions: images everywhere first, then one node after the other, control planes before workers.

    Raises:
        Refused: the step is not allowed, the image is not offered, or a drain could never end; nothing was changed.
    """
    if observation.missing:
        return Plan(NAME, (), 0, platform.digest_data(), waits_for=observation.missing.stage)
    todo = [node for node in platform.nodes if not observation.is_current(node)]
    _refuse(observation, todo)
    todo.sort(key=lambda n: (n.role != "controlplane", _leads(observation, n), n.name))
    left = [n for n in platform.nodes if n.name in observation.cordoned and n not in todo]
    actions: list[Action] = []
    before: tuple[str, ...] = ()
    for node in left:
        actions += _back(node, observation, before, "was cordoned by an earlier run")
        before = (actions[-1].id,)
    image = observation.image.installer
    pulls = [node_action("pull", n, image, "needs the image", (), system="pull", data={"image": image}) for n in todo]
    actions += pulls
    for node in todo:
        actions += _chain(node, observation, (*before, *(pull.id for pull in pulls)))
        before = (actions[-1].id,)
    if actions:
        actions.append(Action("gate at the end", "check", "the platform", "all gates", "", before, "node"))
    notes = [f"interrupted: {node.name}, with what runs on it alone" for node in todo]
    if actions and observation.longhorn.why_not:
        notes.append(f"no canary volume is attached: {observation.longhorn.why_not}")
    return Plan(NAME, tuple(actions), len(platform.nodes) - len(todo), platform.digest_data(), notes=tuple(notes))


def _leads(observation: Observation, node: Node) -> bool:
    return node.name in observation.running and observation.running[node.name].leads


def _refuse(observation: Observation, todo: list[Node]) -> None:
    wanted = observation.image.version
    silent = [node.name for node in todo if node.name not in observation.running]
    if silent:
        raise Refused(
            f"{', '.join(silent)}: no answer, so what runs there is not known",
            remedy="bring the node back first; `health` and `diagnose` name what is wrong",
        )
    steps = {n.name: step_problem("talos", observation.running[n.name].version, wanted) for n in todo}
    if problems := [f"{name} {problem}" for name, problem in steps.items() if problem]:
        raise Refused(
            "; ".join(problems),
            cause="Talos is upgraded minor by minor; going back is a rollback, which etcd and the configuration limit",
            remedy="set versions.talos to the running version or to one of the next minor version",
        )
    if todo and wanted not in observation.offered:
        raise Refused(
            f"the Image Factory does not build Talos {wanted}",
            remedy="set versions.talos to a version that it builds: fluobook versions",
        )
    refuse_endless(todo, observation.blockers, "nothing was cordoned")


def _chain(node: Node, observation: Observation, needs: tuple[str, ...]) -> list[Action]:
    """The actions of one node, one after the other."""
    runs, image = observation.running[node.name], observation.image
    changed = f"{runs.version} to v{image.version}" if runs.version != f"v{image.version}" else "other extensions"
    gate = gate_action(f"before {node.name}", needs)
    drained = node_action("drain", node, "cordon, and evict its pods", "no pod runs while it restarts", (gate.id,))
    data = {"image": image.installer}
    upgraded = node_action("upgrade", node, changed, f"runs {runs.version}", (drained.id,), data=data)
    return [gate, drained, upgraded, *_back(node, observation, (upgraded.id,), "")]


def _back(node: Node, observation: Observation, needs: tuple[str, ...], reason: str) -> list[Action]:
    """What brings an upgraded node back into service: a volume must attach there first."""
    actions: list[Action] = []
    if observation.longhorn.canary_on(node.name):
        detail = "a canary volume, written and read back"
        actions.append(node_action("attach", node, detail, "Longhorn must work under the image", needs))
        needs = (actions[-1].id,)
    return [*actions, node_action("uncordon", node, "pods may come back", reason, needs)]
