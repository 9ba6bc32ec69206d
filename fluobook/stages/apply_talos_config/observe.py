"""What answers at every node's address, and what each configured node would change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook.clients.talos import Applied, Mode, Probe, probe
from fluobook.errors import FluobookError
from fluobook.stages.apply_talos_config.documents import Ingredients, cluster_documents, gather, node_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.machine.pki import KeyPair
    from fluobook.params import Node
    from fluobook.stages.core.site import Site


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


def observe(site: Site) -> Observation:
    """Look at all nodes side by side."""
    nodes = site.platform.nodes
    bundle = site.vault.has_bundle()
    with ThreadPoolExecutor(len(nodes) + 1) as pool:
        gathered = pool.submit(ingredients_of, site)
        probes = dict(zip([n.name for n in nodes], pool.map(lambda n: look(site, n), nodes), strict=True))
        ingredients = gathered.result()
        configured = [node for node in nodes if probes[node.name].mode is Mode.CONFIGURED]
        texts = texts_of(site, ingredients) if configured else {}
        dry = dict(
            zip(
                [n.name for n in configured],
                pool.map(lambda n: _dry_run(site, n, texts[n.name]), configured),
                strict=True,
            )
        )
    versions = {name: version for name, (_, version) in dry.items()}
    return Observation(bundle, probes, ingredients, {name: applied for name, (applied, _) in dry.items()}, versions)


def ingredients_of(site: Site) -> Ingredients:
    """What goes into the configurations; gathered once for a site, since rendering takes a moment."""
    return site.once("talos ingredients", lambda: gather(site.platform, site.root))


def texts_of(site: Site, ingredients: Ingredients) -> dict[str, str]:
    """Every node's configuration. They hold secrets that the vault has told the redactor."""
    generated = cluster_documents(site.platform, site.vault.bundle(), ingredients)
    return {node.name: node_text(site.platform, node, generated, ingredients) for node in site.platform.nodes}


def look(site: Site, node: Node, *, patience: float = 3.0) -> Probe:
    """What answers at a node's address, with our certificates if there are any."""
    if not site.vault.has_bundle():
        return probe(site.talos_address(node), timeout=patience)
    identity: KeyPair = site.vault.talos_identity("os:reader")
    return probe(site.talos_address(node), ca=site.vault.bundle().talos.crt, identity=identity, timeout=patience)


def _dry_run(site: Site, node: Node, text: str) -> tuple[Applied, str]:
    """What applying the configuration again would change; a node that is just rebooting counts as not running yet."""
    talos = site.talos(node, "os:admin")
    try:
        return talos.apply_configuration(text, dry_run=True), talos.version().tag
    except FluobookError as error:
        return Applied("", f"unknown: {error.message}", ()), ""
