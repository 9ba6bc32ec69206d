"""The actions that bring every node to the wanted image, forwards or back, and what is refused before any of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fluobook.errors import PHASE, TALOSCTL, Refused
from fluobook.machine.contracts import has_documents
from fluobook.params import Node, Platform
from fluobook.params.versions import minor_of, ordered
from fluobook.stages.apply_talos_config.plan import step_problem
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.day_two import drain
from fluobook.stages.day_two.drain import gate_action, node_action, refuse_endless
from fluobook.stages.upgrade_talos.state import NAME, Observation


def plan(platform: Platform, observation: Observation) -> Plan:
    """The actions: images everywhere first, then one node after the other, control planes before workers.

    Raises:
        Refused: the step is not allowed, the image is not offered, or a drain could never end; nothing was changed.
    """
    if observation.missing:
        return Plan(NAME, (), 0, platform.digest_data(), waits_for=observation.missing.stage)
    todo = [node for node in platform.nodes if not observation.is_current(node)]
    left = [n for n in platform.nodes if n.name in observation.cordoned and n not in todo]
    back = platform.upgrade.rollback
    _refuse(platform, observation, todo, left)
    todo.sort(key=lambda n: (n.role != "controlplane", _leads(observation, n), n.name))
    cold = next((n.name for n in (*left, *todo) if not (observation.cold or back)), "")
    actions: list[Action] = []
    before: tuple[str, ...] = ()
    for node in left:
        actions += _back(node, observation, before, reason="was cordoned by an earlier run", cold=cold)
        before = (actions[-1].id,)
    image = observation.image.installer
    pulls = [
        node_action("pull", node, image, "needs the image", (), system="pull", data={"image": image})
        for node in todo
        if not back
    ]
    actions += pulls
    for node in todo:
        verb = "rollback" if back else "upgrade"
        actions += _chain(node, observation, (*before, *(pull.id for pull in pulls)), verb=verb, cold=cold)
        before = (actions[-1].id,)
    if actions:
        actions.append(Action("gate at the end", "check", "the platform", "all gates", "", before, "node"))
    notes = [f"interrupted: {node.name}, with what runs on it alone" for node in todo]
    if back:
        notes += _rollback_notes(observation, todo)
    if cold:
        notes.append(f"interrupted once more: {cold}, the first upgraded node, is switched off and on by Proxmox VE")
    if actions and observation.longhorn.why_not:
        notes.append(f"no canary volume is attached: {observation.longhorn.why_not}")
    return Plan(NAME, tuple(actions), len(platform.nodes) - len(todo), platform.digest_data(), notes=tuple(notes))


def _leads(observation: Observation, node: Node) -> bool:
    return node.name in observation.running and observation.running[node.name].leads


def _refuse(platform: Platform, observation: Observation, todo: list[Node], left: list[Node]) -> None:
    wanted = observation.image.version
    if todo or left:
        drain.refuse_others(observation.others)
    talos = {runs.version for runs in observation.running.values()}
    if todo and len(observation.kubernetes) > 1 and len(talos) == 1:
        raise Refused(
            f"the nodes run Kubernetes {' and '.join(sorted(observation.kubernetes, key=ordered))}",
            cause="upgrade-kubernetes is half done, and it wants one version of Talos on all nodes",
            remedy=f"fluobook run {PHASE} upgrade-kubernetes first",
        )
    silent = [node.name for node in todo if node.name not in observation.running]
    if silent:
        raise Refused(
            f"{', '.join(silent)}: no answer, so what runs there is not known",
            remedy="bring the node back first; `health` and `diagnose` name what is wrong",
        )
    if platform.upgrade.rollback:
        _refuse_rollback(platform, observation, todo)
        refuse_endless(todo, observation.blockers, "nothing was cordoned")
        return
    steps = {n.name: step_problem("talos", observation.running[n.name].version, wanted) for n in todo}
    if problems := [f"{name} {problem}" for name, problem in steps.items() if problem]:
        raise Refused(
            "; ".join(problems),
            cause="Talos is upgraded minor by minor; going back is a rollback, which etcd and the configuration limit",
            remedy="set versions.talos to the running version or to one of the next minor version; to go back to the "
            "image before, run it with --set platform.upgrade.rollback=true",
        )
    if todo and wanted not in observation.offered:
        raise Refused(
            f"the Image Factory does not build Talos {wanted}",
            remedy="set versions.talos to a version that it builds: fluobook versions",
        )
    refuse_endless(todo, observation.blockers, "nothing was cordoned")


def _chain(node: Node, observation: Observation, needs: tuple[str, ...], *, verb: str, cold: str) -> list[Action]:
    """The actions of one node, one after the other."""
    runs, image = observation.running[node.name], observation.image
    changed = f"{runs.version} to v{image.version}" if runs.version != f"v{image.version}" else "other extensions"
    gate = gate_action(f"before {node.name}", needs)
    drained = node_action("drain", node, "cordon, and evict its pods", "no pod runs while it restarts", (gate.id,))
    data = {"image": image.installer}
    upgraded = node_action(verb, node, changed, f"runs {runs.version}", (drained.id,), data=data)
    return [gate, drained, upgraded, *_back(node, observation, (upgraded.id,), reason="", cold=cold)]


def _back(node: Node, observation: Observation, needs: tuple[str, ...], *, reason: str, cold: str) -> list[Action]:
    """What brings an upgraded node back into service: the first boots from its firmware, and a volume must attach.

    Talos restarts by kexec, which hides a boot chain that no longer works.
    """
    actions: list[Action] = []
    if node.name == cold:
        data = {"image": observation.image.installer}
        why = "kexec skipped its firmware and boot loader"
        actions.append(node_action("power-cycle", node, "off and on by Proxmox VE", why, needs, data=data))
        needs = (actions[-1].id,)
    if observation.longhorn.canary_on(node.name):
        detail = "a canary volume, written and read back"
        actions.append(node_action("attach", node, detail, "Longhorn must work under the image", needs))
        needs = (actions[-1].id,)
    return [*actions, node_action("uncordon", node, "pods may come back", reason, needs)]


def _refuse_rollback(platform: Platform, observation: Observation, todo: Sequence[Node]) -> None:
    """Refuse a way back that does not lead anywhere, before anything is cordoned.

    Args:
        platform: the params.
        observation: what was read.
        todo: the nodes that do not run the wanted image; all of them have answered.

    Raises:
        Refused: with the reason and what is left to do.
    """
    wanted = observation.image.version
    older = [n.name for n in todo if ordered(observation.running[n.name].version) < ordered(wanted)]
    if older:
        raise Refused(
            f"{', '.join(older)}: runs an older Talos than versions.talos ({wanted}), and a rollback only goes back",
            remedy="set versions.talos to the version that ran before the upgrade, or leave upgrade.rollback out",
        )
    if not todo:
        return
    if observation.documents and not has_documents(minor_of(wanted)):
        raise Refused(
            f"{', '.join(sorted(observation.documents))}: Talos {wanted} cannot read the configuration, whose contract "
            "is 1.14 or newer",
            cause="Rollback does not look at the configuration, and the node would not start with it",
            remedy="stay with the newer Talos; a node goes back only if it is made anew with the older contract",
        )
    if refusal := next(_kubernetes(platform, observation), ""):
        raise Refused(
            refusal,
            cause="Kubernetes does not go back with Talos, and the older Talos does not support it",
            remedy="stay with the newer Talos",
        )
    _refuse_etcd(platform, observation)


def _kubernetes(platform: Platform, observation: Observation) -> Iterator[str]:
    for version in sorted(observation.kubernetes, key=ordered):
        if refusal := platform.supported.matrix.refusal("talos", observation.image.version, version):
            yield refusal


def _refuse_etcd(platform: Platform, observation: Observation) -> None:
    """Refuse where etcd has data that the older one does not read."""
    etcd, wanted = platform.supported.matrix.etcd, observation.image.version
    old = etcd.get(minor_of(wanted), "")
    for node in platform.control_planes:
        runs = observation.running[node.name]
        now = minor_of(runs.storage) or etcd.get(minor_of(runs.version), "")
        if minor_of(runs.version) == minor_of(wanted) and not runs.storage:
            continue
        if not old or not now or ordered(now) > ordered(old):
            raise Refused(
                f"etcd on {node.name} has data of version {now or 'unknown'}, and Talos {wanted} brings etcd "
                f"{old or 'of an unknown version'}",
                cause="once every member runs the newer etcd, its data is not read by the older one",
                remedy=f"let etcd go back first (`{TALOSCTL} -n {node.address} etcd downgrade validate {old}`, then "
                f"`enable {old}`); once every member shows that storage version, run this again"
                if old and now
                else f"add Talos {minor_of(runs.version if old else wanted)} to matrix.etcd in params/versions.yaml",
            )


def _rollback_notes(observation: Observation, todo: Sequence[Node]) -> list[str]:
    """What a person should know before going back."""
    wanted = observation.image.version
    if not todo:
        return [f"every node runs Talos {wanted}: to go back, set versions.talos to the version before the upgrade"]
    return [
        f"lost: Talos {', '.join(sorted({observation.running[n.name].version for n in todo}))} and what only it can do",
        "not brought back: the machine configuration, etcd and volumes stay as they are now",
        f"a node whose previous image is not Talos {wanted} stops the rollback",
    ]
