"""What of Kubernetes runs in which version, what speaks against the step, and the actions that lead to the params'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fluobook.errors import PHASE, Refused
from fluobook.kubernetes.removed import KUBELET, PLACES
from fluobook.params import Node, Platform
from fluobook.params.versions import minor_of, ordered
from fluobook.stages.apply_talos_config.plan import step_problem
from fluobook.stages.core.cluster import Missing
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.day_two.drain import gate_action, node_action, refuse_endless, refuse_others

NAME = "upgrade-kubernetes"
PROXY = "kube-proxy"
CONTROL_PLANE = tuple(name for name in PLACES if name != PROXY)
"""The parts that Talos runs as static pods, in the order in which Kubernetes allows them to be upgraded."""
PROGRAMS = {
    "cilium": "cilium/cilium",
    "argo-cd": "argoproj/argocd",
    "ingress-nginx": "ingress-nginx/controller",
    "scylla-operator": "scylladb/scylla-operator",
}
"""The programs with rows in the matrix, and how the names of their images end."""


@dataclass(frozen=True)
class NodeState:
    """What a node has of Kubernetes.

    Args:
        configured: by component the image in its machine configuration.
        running: by component the version that runs, such as "1.35.4"; none for a static pod that is not ready.
        talos: its version of Talos, such as "v1.14.1".
    """

    configured: Mapping[str, str] = field(default_factory=dict)
    running: Mapping[str, str] = field(default_factory=dict)
    talos: str = ""


@dataclass(frozen=True)
class ParamsFile:
    """The params file of the phase, where it does not say the version.

    Args:
        name: its path in the repository; "" if there is none of that name.
        says: the version of Kubernetes that follows from it.
        diff: what would be written.
        writes: whether it is written; a rehearsal changes no file of the repository.
    """

    name: str = ""
    says: str = ""
    diff: str = ""
    writes: bool = True


@dataclass(frozen=True)
class Observation:
    """What was read.

    Args:
        wanted: by the node's name and component the image that stage 2 would configure.
        missing: what an earlier stage has not done.
        nodes: by the node's name what it has; a node that does not answer is not in it.
        cordoned: the nodes that this runbook cordoned.
        blockers: by the node's name what would keep its drain from ending.
        programs: by program of the matrix the versions that run.
        cilium: the version of Cilium in the tree.
        removed: what the new version no longer has and is used: each with its place.
        params: the params file, if it says another version.
        manifests: Talos' own objects that differ from what it would apply.
        others: the nodes that other runbooks have cordoned, each with the runbook.
    """

    wanted: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    missing: Missing | None = None
    nodes: Mapping[str, NodeState] = field(default_factory=dict)
    cordoned: frozenset[str] = frozenset()
    blockers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    programs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    cilium: str = ""
    removed: tuple[str, ...] = ()
    params: ParamsFile | None = None
    manifests: tuple[str, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)

    def is_current(self, node: Node, component: str) -> bool:
        """Whether a node is configured with a component's wanted image, and runs it; a proxy is only configured."""
        has, image = self.nodes.get(node.name, NodeState()), self.wanted[node.name].get(component, "")
        runs = component == PROXY or has.running.get(component) == version_of(image)
        return not image or (has.configured.get(component) == image and runs)

    def is_in_work(self, node: Node, component: str) -> bool:
        """Whether a component is configured with its wanted image and does not run it: an earlier run began it."""
        has, image = self.nodes.get(node.name, NodeState()), self.wanted[node.name].get(component)
        return has.configured.get(component) == image and not self.is_current(node, component)

    def todo(self, platform: Platform) -> tuple[dict[str, list[Node]], list[Node]]:
        """By part of the control plane the nodes where it changes; and the nodes whose kubelet does.

        A part that is not ready comes first: nothing else is taken away before it is back.
        """
        parts = {
            part: sorted(
                (node for node in platform.control_planes if not self.is_current(node, part)),
                key=lambda node: bool(self.nodes.get(node.name, NodeState()).running.get(part)),
            )
            for part in CONTROL_PLANE
        }
        kubelets = [n for n in platform.nodes if not (self.is_current(n, KUBELET) and self.is_current(n, PROXY))]
        return parts, sorted(kubelets, key=lambda node: (node.role != "controlplane", node.name))


def version_of(image: str) -> str:
    """The version in the name of an image: "1.35.4" in ghcr.io/siderolabs/kubelet:v1.35.4-slim; "" for none."""
    tag = image.partition("@")[0].rpartition("/")[2].rpartition(":")[2]
    return tag.removeprefix("v").partition("-")[0] if tag[:1] == "v" else ""


def plan(platform: Platform, observation: Observation) -> Plan:
    """The actions: images everywhere, the params file, API servers, controller managers, schedulers, then kubelets.

    Raises:
        Refused: the step is not allowed, something in use does not go with the new version, or a drain could never
            end; nothing was changed.
    """
    if observation.missing:
        return Plan(NAME, (), 0, platform.digest_data(), waits_for=observation.missing.stage)
    parts, kubelets = observation.todo(platform)
    changing = [n for n in platform.nodes if n in kubelets or any(n in nodes for nodes in parts.values())]
    _refuse(platform, observation, changing, kubelets)
    actions, before = _before(platform, observation, changing, kubelets)
    for part, nodes in parts.items():
        for number, node in enumerate(nodes):
            if (part == CONTROL_PLANE[0] or not number) and not observation.is_in_work(node, part):
                where = f"{part} on {node.name}" if part == CONTROL_PLANE[0] else part
                actions.append(gate_action(f"before {where}", before))
                before = (actions[-1].id,)
            actions.append(_replacement(observation, node, part, before))
            before = (actions[-1].id,)
    for node in kubelets:
        actions += _chain(observation, node, before)
        before = (actions[-1].id,)
    if observation.manifests or changing:
        detail = ", ".join(observation.manifests) or "what differs, nothing is deleted"
        actions.append(Action("manifests", "apply", "Talos' own objects", detail, "", before, "node"))
        before = ("manifests",)
    if actions:
        actions.append(gate_action("at the end", before))
    kept = len(platform.nodes) - len(changing)
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), notes=tuple(_notes(platform, observation)))


def _before(
    platform: Platform, observation: Observation, changing: Sequence[Node], kubelets: Sequence[Node]
) -> tuple[list[Action], tuple[str, ...]]:
    """What comes before the first change of a node, and what that waits for."""
    actions, before = list[Action](), tuple[str, ...]()
    for node in platform.nodes:
        if node.name in observation.cordoned and node not in kubelets:
            actions.append(node_action("uncordon", node, "its kubelet is done", "cordoned by an earlier run", before))
            before = (actions[-1].id,)
    for node in changing:
        images = {part: image for part, image in observation.wanted[node.name].items() if part != PROXY}
        detail = f"{len(images)} images" if len(images) > 1 else "the image of its kubelet"
        actions.append(node_action("pull", node, detail, "needs it", (), system="pull", data={"images": images}))
        before = (*before, actions[-1].id)
    file = observation.params
    if file and file.writes and file.name:
        detail = f"versions.kubernetes: {file.says} to {platform.versions.kubernetes}"
        data = {"version": platform.versions.kubernetes}
        actions.append(Action("params", "change", file.name, detail, "says another version", before, "node", data))
        before = ("params",)
    return actions, before


def _replacement(observation: Observation, node: Node, part: str, before: tuple[str, ...]) -> Action:
    image = observation.wanted[node.name][part]
    runs = observation.nodes[node.name].running.get(part)
    detail = f"{runs} to {version_of(image)}" if runs else f"to {version_of(image)}"
    reason = "" if runs else "it is not ready"
    data = {"node": node.name, "images": {part: image}}
    return Action(f"{part} {node.name}", "replace", f"{part} on {node.name}", detail, reason, before, "node", data)


def _chain(observation: Observation, node: Node, before: tuple[str, ...]) -> list[Action]:
    """The actions for the kubelet of one node, one after the other; without a gate if the node is away already."""
    wanted, runs = observation.wanted[node.name], observation.nodes[node.name].running.get(KUBELET)
    is_away = observation.is_in_work(node, KUBELET) and node.name in observation.cordoned
    gates = [] if is_away else [gate_action(f"before {node.name}", before)]
    needs = tuple(gate.id for gate in gates) or before
    drained = node_action("drain", node, "cordon, and evict its pods", "no pod runs while its kubelet changes", needs)
    images = {part: wanted[part] for part in (KUBELET, PROXY) if part in wanted}
    detail = f"kubelet {runs} to {version_of(images[KUBELET])}" if runs else f"kubelet {version_of(images[KUBELET])}"
    upgraded = node_action("upgrade", node, detail, "", (drained.id,), data={"images": images})
    return [*gates, drained, upgraded, node_action("uncordon", node, "pods may come back", "", (upgraded.id,))]


def _notes(platform: Platform, observation: Observation) -> Iterator[str]:
    """What is interrupted, what nobody has tested, and what becomes of the params file."""
    parts, kubelets = observation.todo(platform)
    servers = [node.name for node in parts[CONTROL_PLANE[0]]]
    if servers and len(platform.control_planes) == 1:
        yield f"interrupted: the Kubernetes API, while its only server restarts on {servers[0]}"
    elif servers:
        yield f"interrupted: connections to the API server of each of {', '.join(servers)}, one after the other"
    yield from (f"interrupted: {node.name}, with what runs on it alone" for node in kubelets)
    if servers or kubelets:
        for program, versions in observation.programs.items():
            for version in sorted(versions) if program != "cilium" else ():
                if refusal := platform.supported.matrix.refusal(program, version, platform.versions.kubernetes):
                    yield f"not a combination that was tested: {refusal}"
    file = observation.params
    if file is None or not ((file.writes and file.name) or servers or kubelets):
        return
    if file.name:
        what = "is changed, commit it" if file.writes else "would be changed live, a rehearsal writes nothing"
        yield f"{file.name} {what}:\n{file.diff}"
    else:
        yield f"set versions.kubernetes to {platform.versions.kubernetes} in your params file: none here has its name"


def _refuse(platform: Platform, observation: Observation, changing: Sequence[Node], kubelets: Sequence[Node]) -> None:
    """Refuse what cannot work, before anything is touched."""
    silent = [node.name for node in platform.nodes if node.name not in observation.nodes]
    if silent:
        raise Refused(
            f"{', '.join(silent)}: no answer, so what runs there is not known",
            remedy="bring the node back first; `health` and `diagnose` name what is wrong",
        )
    if not changing:
        return
    refuse_others(observation.others)
    wanted = platform.versions.kubernetes
    if problems := _steps(observation, wanted):
        raise Refused(
            "; ".join(problems),
            cause="Kubernetes goes up minor by minor, and no version of it goes back",
            remedy="set versions.kubernetes to the newest version that runs, or to one of the next minor version; "
            "finish an interrupted upgrade to its own version first",
        )
    _refuse_talos(platform, observation)
    _refuse_cilium(platform, observation)
    if observation.removed:
        raise Refused(
            f"Kubernetes {wanted} no longer has what is in use:\n  " + "\n  ".join(observation.removed),
            cause="an API server or kubelet with an unknown flag or gate does not start, and objects of an API that is "
            "gone cannot be read",
            remedy="while the old version still runs: change the files above and push them; for machine "
            f"configurations change talos/patches, then fluobook run {PHASE} --only apply-talos-config",
        )
    refuse_endless(kubelets, observation.blockers, "nothing was changed")


def _steps(observation: Observation, wanted: str) -> list[str]:
    """By problem, the components that would go back, or leave a minor version out."""
    problems: dict[str, list[str]] = {}
    for name, has in observation.nodes.items():
        for part in (*CONTROL_PLANE, KUBELET):
            for version in (version_of(has.configured.get(part, "")), has.running.get(part, "")):
                if version and (problem := step_problem("kubernetes", version, wanted)):
                    problems.setdefault(problem, []).append(f"{part} on {name}")
    return [f"{_some(places)}: {problem}" for problem, places in problems.items()]


def _some(places: Iterable[str]) -> str:
    first, *others = dict.fromkeys(places)
    return first + (f" and {len(others)} more" if others else "")


def _refuse_talos(platform: Platform, observation: Observation) -> None:
    """Talos supports the new version on every node, and is not being upgraded itself."""
    versions = {has.talos for has in observation.nodes.values()}
    if len(versions) > 1:
        raise Refused(
            f"the nodes run Talos {' and '.join(sorted(versions, key=ordered))}",
            cause="Talos and Kubernetes are not upgraded at once: what breaks would have two causes",
            remedy=f"fluobook run {PHASE} upgrade-talos first",
        )
    version = next(iter(versions))
    if refusal := platform.supported.matrix.refusal("talos", version, platform.versions.kubernetes):
        raise Refused(
            f"{refusal}; Talos {version} runs",
            cause="a node refuses a version of Kubernetes that its Talos does not know",
            remedy=f"set versions.talos to one that supports it, and fluobook run {PHASE} upgrade-talos first",
        )


def _refuse_cilium(platform: Platform, observation: Observation) -> None:
    """Cilium comes before Kubernetes, where the one that runs is not tested with the new version."""
    matrix, wanted = platform.supported.matrix, platform.versions.kubernetes
    refused = [
        refusal
        for version in sorted(observation.programs.get("cilium", ()))
        if (refusal := matrix.refusal("cilium", version, wanted))
    ]
    if not refused:
        return
    synced = observation.cilium and not matrix.refusal("cilium", observation.cilium, wanted)
    raise Refused(
        "; ".join(refused),
        cause="the network of every pod is Cilium's, so it is upgraded before Kubernetes, one minor version at a time",
        remedy=(
            f"the tree has Cilium {observation.cilium}, which does: let Argo CD sync it "
            f"(fluobook run {PHASE} --only root-application), then run this again"
            if synced
            else "change its version in its application.yaml to a minor whose row in params/versions.yaml has "
            f"Kubernetes {minor_of(wanted)}, push it, let Argo CD sync it, then run this again"
        ),
    )
