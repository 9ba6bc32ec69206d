"""What the nodes run, and what would keep them from another image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from fluobook.clients.talos import TalosNode
from fluobook.clients.talos.resources import EXTENSIONS, MACHINE_CONFIG
from fluobook.context import RunContext
from fluobook.errors import DeadlineExceeded, FluobookError
from fluobook.files import read_text
from fluobook.machine.documents import load
from fluobook.machine.schematic import Image, image_of
from fluobook.params import Node
from fluobook.stages.core.cluster import RETURNS, Missing, returning_api
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.day_two import drain
from fluobook.stages.day_two.canary import Longhorn, read_longhorn
from fluobook.stages.upgrade_kubernetes.work import kubernetes_versions
from fluobook.waiting import wait_until

NAME = "upgrade-talos"
COLD_BOOT = "fluobook/cold-boot"
"""The annotation of the node that was switched off and on under an image: the image."""


@dataclass(frozen=True)
class Running:
    """What a node runs.

    Args:
        version: of Talos, such as "v1.13.9".
        schematic: of its image; "" if it does not tell.
        leads: whether its member of etcd is the leader.
        storage: the version of its member's data, such as "3.6.0"; "" on a worker, or if it does not tell.
    """

    version: str
    schematic: str = ""
    leads: bool = False
    storage: str = ""

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
        cold: whether a node was switched off and on under the wanted image.
        others: the nodes that other runbooks have cordoned, each with the runbook.
        documents: the nodes whose configuration is of contract 1.14 or newer; read for a rollback.
        kubernetes: the versions of Kubernetes that run: of static pods that are ready, and of kubelets.
    """

    image: Image
    missing: Missing | None = None
    running: Mapping[str, Running] = field(default_factory=dict)
    cordoned: frozenset[str] = frozenset()
    blockers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    offered: frozenset[str] = frozenset()
    longhorn: Longhorn = field(default_factory=Longhorn)
    cold: bool = False
    others: Mapping[str, str] = field(default_factory=dict)
    documents: frozenset[str] = frozenset()
    kubernetes: frozenset[str] = frozenset()

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
        leads, storage = (status.leader == status.id, status.storage) if status else (False, "")
        return Running(client.version().tag, schematic, leads, storage)
    except FluobookError:
        return None


def _all_running(context: RunContext, cordoned: frozenset[str]) -> dict[str, Running]:
    """What every node runs; one that an earlier run has cordoned, and may have restarted, is waited for."""

    def read(node: Node) -> Running | None:
        runs = read_running(context, node)
        if runs or node.name not in cordoned:
            return runs
        with suppress(DeadlineExceeded):
            return wait_until(
                lambda: read_running(context, node),
                what=f"{node.name} to answer",
                timeout=RETURNS,
                cancellation=context.cancellation,
            )
        return None

    nodes = context.platform.nodes
    answers = in_parallel(read, nodes, width=len(nodes))
    return {node.name: runs for node, runs in zip(nodes, answers, strict=True) if runs}


def cold_boot(node: Mapping[str, Any]) -> str:
    """The image under which a Node was switched off and on; "" for none."""
    return str((node["metadata"].get("annotations") or {}).get(COLD_BOOT) or "")


def _with_documents(context: RunContext, running: Iterable[str]) -> frozenset[str]:
    """The nodes whose own configuration has the documents that only contract 1.14 and newer have."""
    texts = {name: str(_admin(context, name).get(MACHINE_CONFIG).spec) for name in running}
    return frozenset(n for n, text in texts.items() if any(d.get("kind") == "KubeClusterConfig" for d in load(text)))


def _admin(context: RunContext, name: str) -> TalosNode:
    return context.talos.client(context.platform.node(name), "os:admin")


def wanted_image(context: RunContext) -> Image:
    """The image of the params and the schematic."""
    return image_of(read_text(context.root / "talos" / "schematic.yaml"), context.platform.versions.talos)


def observe(context: RunContext) -> Observation:
    """Ask every node, the cluster and the Image Factory."""
    platform, image = context.platform, wanted_image(context)
    kube = returning_api(context)
    if isinstance(kube, Missing):
        return Observation(image, kube)
    nodes = {node["metadata"]["name"]: node for node in kube.list("v1", "Node")}
    cordoned = frozenset(name for name, node in nodes.items() if drain.cordoned_by(node) == NAME)
    cold = {cold_boot(node) for node in nodes.values()}
    pods = kube.list("v1", "Pod", "kube-system")
    observation = Observation(
        image,
        None,
        _all_running(context, cordoned),
        cordoned,
        longhorn=read_longhorn(kube),
        cold=image.installer in cold,
        others=drain.cordoned_by_others(nodes.values(), NAME),
        kubernetes=frozenset(
            version
            for node in platform.nodes
            for version in kubernetes_versions(node, nodes.get(node.name), pods).values()
        ),
    )
    if all(observation.is_current(node) for node in platform.nodes):
        return observation
    if platform.upgrade.rollback:
        observation = replace(observation, documents=_with_documents(context, observation.running))
    held, seconds = drain.read_load(kube), platform.deadlines.drain
    blocked = {n.name: tuple(drain.blockers(n.name, held, seconds=seconds)) for n in platform.nodes}
    offered = frozenset(version.removeprefix("v") for version in context.factory.versions())
    return replace(observation, blockers=blocked, offered=offered)
