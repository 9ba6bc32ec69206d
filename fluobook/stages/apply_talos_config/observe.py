"""What answers at every node's address, and what each configured node would change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook.clients.talos import Applied, Mode, Probe
from fluobook.errors import OutsideError
from fluobook.stages.apply_talos_config.contradictions import refuse_contradictions
from fluobook.stages.apply_talos_config.documents import Ingredients, cluster_documents, gather, node_text
from fluobook.stages.core.cluster import probe_nodes
from fluobook.stages.core.executor import in_parallel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.context import RunContext
    from fluobook.params import Node

NOT_YET = ("FAILED_PRECONDITION", "UNAVAILABLE")
"""What a node says that is busy with another configuration, or is just about to restart."""

BUSY = (0.3, 1.0, 3.0)
"""Seconds to wait before each repetition of a dry run to which a node says so."""


@dataclass(frozen=True)
class Observation:
    """What there is.

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
    """Look at all nodes side by side."""
    bundle = context.secrets.has_bundle()
    with ThreadPoolExecutor(1) as pool:
        gathered = pool.submit(ingredients_of, context)
        probes = probe_nodes(context)
        ingredients = gathered.result()
    configured = [node for node in context.platform.nodes if probes[node.name].mode is Mode.CONFIGURED]
    texts = texts_of(context, ingredients) if configured else {}
    asked = in_parallel(lambda node: dry_run(context, node, texts[node.name]), configured)
    names = [node.name for node in configured]
    dry_runs = dict(zip(names, (applied for applied, _ in asked), strict=True))
    versions = dict(zip(names, (version for _, version in asked), strict=True))
    return Observation(bundle, probes, ingredients, dry_runs, versions)


class Texts(dict[str, str]):
    """Every node's configuration as YAML, by node name."""


def ingredients_of(context: RunContext) -> Ingredients:
    """What goes into the configurations; gathered once for a context, since rendering takes a moment."""
    return context.shared(Ingredients, lambda: gather(context.platform, context.root))


def texts_of(context: RunContext, ingredients: Ingredients) -> Texts:
    """Every node's configuration. They hold secrets that the secrets has told the redactor.

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
