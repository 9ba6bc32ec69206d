"""What stage 2 reads of the nodes, the plan that follows from it, and the checks after it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook.clients.talos import Applied, Mode, Probe
from fluobook.errors import ForeignObject, OutsideError, Refused
from fluobook.stages.apply_talos_config.documents import (
    Ingredients,
    cluster_documents,
    gather,
    node_text,
    refuse_contradictions,
)
from fluobook.stages.core.check import Check
from fluobook.stages.core.cluster import probe_nodes
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.context import RunContext
    from fluobook.params import Node, Platform


NOT_YET = ("FAILED_PRECONDITION", "UNAVAILABLE")
"""gRPC codes of a node that is busy with another configuration, or is just about to restart."""

BUSY = (0.3, 1.0, 3.0)
"""Seconds to wait before each repetition of a dry run that a busy node refused."""


@dataclass(frozen=True)
class Observation:
    """The state of the nodes.

    Args:
        bundle: whether the secrets bundle exists.
        probes: what answers at each node's address.
        dry_runs: what each configured node would change.
        ingredients: what goes into the configurations.
        versions: each configured node's Talos version.
    """

    bundle: bool
    probes: Mapping[str, Probe]
    ingredients: Ingredients = field(repr=False)
    dry_runs: Mapping[str, Applied] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def mode(self, node: Node) -> Mode:
        """What answers at a node's address."""
        return self.probes[node.name].mode


def observe(context: RunContext) -> Observation:
    """Probe all nodes in parallel."""
    bundle = context.secrets.has_bundle()
    with ThreadPoolExecutor(1) as pool:
        gathered = pool.submit(ingredients_of, context)
        probes = probe_nodes(context)
        ingredients = gathered.result()
    configured = [node for node in context.platform.nodes if probes[node.name].mode is Mode.CONFIGURED]
    texts = texts_of(context, ingredients) if configured else {}
    answers = in_parallel(lambda node: dry_run(context, node, texts[node.name]), configured)
    names = [node.name for node in configured]
    dry_runs = dict(zip(names, (applied for applied, _ in answers), strict=True))
    versions = dict(zip(names, (version for _, version in answers), strict=True))
    return Observation(bundle, probes, ingredients, dry_runs, versions)


class Texts(dict[str, str]):
    """Every node's configuration as YAML, by node name."""


def ingredients_of(context: RunContext) -> Ingredients:
    """What goes into the configurations; gathered once for a context, since rendering takes a moment."""
    return context.shared(Ingredients, lambda: gather(context.platform, context.root))


def texts_of(context: RunContext, ingredients: Ingredients) -> Texts:
    """Every node's configuration. They contain secrets, which are registered with the redactor.

    Raises:
        ParamsError: they contradict the params or the bundle.
    """
    platform, bundle = context.platform, context.secrets.bundle()
    generated = cluster_documents(platform, bundle, ingredients)
    texts = Texts((node.name, node_text(platform, node, generated, ingredients)) for node in platform.nodes)
    refuse_contradictions(platform, bundle, ingredients, texts)
    return texts


def dry_run(context: RunContext, node: Node, text: str) -> tuple[Applied, str]:
    """What applying a configuration to a configured node would change, and the node's Talos version.

    Raises:
        OutsideError: the node refuses the configuration, or has no answer.
    """
    talos = context.talos.client(node, "os:admin")
    for pause in BUSY:
        try:
            return talos.apply_configuration(text, dry_run=True), talos.version().tag
        except OutsideError as error:
            if error.code not in NOT_YET:
                raise
        context.cancellation.pause(pause)
    return talos.apply_configuration(text, dry_run=True), talos.version().tag


NAME = "apply-talos-config"

SHOWN = 6
"""Changed keys that a plan names."""


def plan(platform: Platform, observation: Observation) -> Plan:
    """The actions of stage 2.

    Raises:
        ForeignObject: a node of another cluster answers at an address of ours.
        Refused: nodes have a configuration, but the secrets bundle that it was made from is not here.
    """
    _nothing_foreign(platform, observation)
    silent = [node.name for node in platform.nodes if observation.mode(node) is Mode.UNREACHABLE]
    actions = [] if observation.bundle else [_bundle()]
    cycled = ""
    for node in platform.nodes:
        if action := _node(platform, node, observation, cycled):
            actions.append(action)
            cycled = action.id if action.system == "cycle" else cycled
    kept = 1 + len(platform.nodes) - len(actions)
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), "create-vms" if silent else "", _notes(observation))


def _nothing_foreign(platform: Platform, observation: Observation) -> None:
    foreign = {n.name: observation.probes[n.name].detail for n in platform.nodes if observation.mode(n) is Mode.FOREIGN}
    if foreign and not observation.bundle:
        raise Refused(
            f"{', '.join(foreign)} have a configuration, but there is no secrets bundle here",
            cause="the bundle was made in another checkout or on another machine; a new one would be another cluster",
            remedy="bring the bundle (secrets.bundle in the params) from where the cluster was made",
        )
    if foreign:
        conflicts = "; ".join(f"{name}: {detail}" for name, detail in foreign.items())
        raise ForeignObject(
            f"a node of another cluster answers: {conflicts}",
            cause="another cluster has this address, or the secrets bundle is not the one this cluster was made with",
            remedy="find out which cluster it is; it is never wiped from here",
        )


def _bundle() -> Action:
    return Action("secrets bundle", "write", "secrets bundle", "encrypted with SOPS, written once", "there is none yet")


def _node(platform: Platform, node: Node, observation: Observation, cycled: str) -> Action | None:
    data = {"node": node.name, "ingredients": observation.ingredients.digest()}
    detail = f"{node.role}, Talos {platform.versions.talos}, Kubernetes {platform.versions.kubernetes}"
    if observation.mode(node) is Mode.CONFIGURED:
        applied = observation.dry_runs[node.name]
        if applied.unchanged:
            return None
        reason = "differs: " + what_differs(applied.details)
        return Action(
            f"apply {node.name}",
            "change",
            f"node {node.name}",
            detail,
            reason,
            (cycled,) if cycled else (),
            "cycle",
            data,
        )
    return Action(
        f"apply {node.name}",
        "apply",
        f"node {node.name}",
        detail,
        "has no configuration",
        ("secrets bundle",),
        "talos",
        data,
    )


def what_differs(details: str) -> str:
    """The keys in the changed lines of a difference; never their values, some of which only the node knows."""
    changed = [
        f"{line[0]} {_key(line[1:])}"
        for line in details.splitlines()
        if line.startswith(("+", "-")) and not line.startswith(("+++", "---"))
    ]
    shown = list(dict.fromkeys(changed))
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")


def _key(line: str) -> str:
    key, colon, _ = line.strip().removeprefix("- ").partition(":")
    return key if colon else "(an item of a list)"


def _notes(observation: Observation) -> tuple[str, ...]:
    return tuple(f"{name}: {warning}" for name, applied in observation.dry_runs.items() for warning in applied.warnings)


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 2."""
    nodes = context.platform.nodes
    strangers = [node.name for node in nodes if observation.mode(node) is not Mode.CONFIGURED]
    differing = [name for name, applied in observation.dry_runs.items() if not applied.unchanged]
    wanted = f"v{context.platform.versions.talos.removeprefix('v')}"
    other = [
        f"{name} has {version or 'unknown'}" for name, version in observation.versions.items() if version != wanted
    ]
    total = len(nodes)
    return (
        Check(
            "the secrets bundle exists, encrypted", observation.bundle and encrypted(context), context.secrets.path.name
        ),
        Check("every node trusts this cluster's authority", not strangers, _count(total, strangers)),
        Check(
            "every node has exactly this configuration",
            not differing and not strangers,
            _count(total, differing or strangers),
        ),
        Check(f"every node runs Talos {wanted}", not other and not strangers, _count(total, other or strangers)),
    )


def encrypted(context: RunContext) -> bool:
    """Whether the bundle's file carries SOPS metadata and no plaintext private key."""
    text = context.secrets.path.read_text()
    return "sops:" in text and "PRIVATE KEY" not in text and not context.redactor.leaks(text)


def _count(total: int, wrong: Sequence[str]) -> str:
    return f"{total - len(wrong)} of {total}" + (f"; not: {', '.join(wrong)}" if wrong else "")
