"""The embedded Kubernetes as the Talos nodes drive it.

The API server starts with the PKI of the applied configuration, inline manifests are applied, kubelets join and leave.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Any

from fluobook.kubernetes import manifests
from fluobook.machine import pki
from fluobook.params.versions import ordered
from fluobook_lab.grpc import bound
from fluobook_lab.http import issue_for
from fluobook_lab.kube import snapshots
from fluobook_lab.kube.cluster import KubeCluster
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.kubelet import (
    STATIC_PODS,
    Kubelet,
    NodeInfo,
    image_of,
    node_info,
    remove_static_pod,
    static_pod,
)
from fluobook_lab.talos.config import pair
from fluobook_lab.talos.lifecycle import PULL_SECONDS
from fluobook_lab.talos.node import UP, WAITING_FOR_CRI
from fluobook_lab.talos.shared_address import SharedAddress

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.http import HttpServer, Request
    from fluobook_lab.kube.store import Store
    from fluobook_lab.talos import MachineConfiguration, TalosMachine

RESTART = 3.0
"""Simulated seconds from the end of a part of the control plane until its successor runs."""
API_DELAY = 12.0
"""Simulated seconds from the bootstrap of etcd until the API server answers."""
RETRY = 0.05
"""Real seconds between two attempts to apply a manifest whose kind is not served yet."""
TRIES = 200

_log = logging.getLogger(__name__)


class KubernetesSide:
    """The hooks that Talos nodes call (`fluobook_lab.talos.Cluster`), and the one Kubernetes cluster behind them.

    Args:
        sockets: reserved sockets of the API, by its address.
        shared: the address that the control planes share, or "".
        clock: the lab's clock.
        faults: the faults to inject.
        version: of Kubernetes, such as 1.35.4.
        seed: the random seed of names and delays.
        ready: called once, when the API answers.
        networks: `pod_cidr` and `service_cidr`.
    """

    def __init__(
        self,
        sockets: Mapping[str, socket.socket],
        shared: str,
        *,
        clock: Clock,
        faults: Faults,
        version: str,
        seed: int,
        ready: Callable[[], None],
        networks: Mapping[str, str],
    ) -> None:
        self.cluster = KubeCluster(clock, faults, version=f"v{version}", seed=seed, **networks)
        self._sockets, self._address, self._clock, self._ready = sockets, shared, clock, ready
        self._faults = faults
        self._bootstrapped, self._begun = asyncio.Event(), False
        self._listeners: dict[str, list[HttpServer]] = {}
        self.shared = SharedAddress(shared, self._listeners, serve=self._serve_shared, close=self._close)
        self._ended: dict[str, str] = {}
        self._servers: dict[str, tuple[TalosMachine, MachineConfiguration]] = {}
        self._kubelets: dict[str, Kubelet] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._authorities: dict[str, tuple[str, ...]] = {}
        self._version = version

    @property
    def store(self) -> Store:
        """The cluster's objects."""
        return self.cluster.api.store

    @property
    def requests(self) -> Sequence[Request]:
        """The requests to the API."""
        return self.cluster.api.requests

    @property
    def volumes(self) -> Sequence[tuple[float, str, int, int]]:
        """When which volume of Longhorn had how many healthy replicas, and how many it wants."""
        return self.cluster.longhorn.moments

    def on_bootstrap(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """Start the control plane, because the first member of an etcd runs; of a second etcd, with what that has."""
        etcd = node.disk.etcd
        self.cluster.api.has_quorum = lambda: etcd is None or etcd.has_quorum
        if self._begun:
            objs, revision = snapshots.restored(etcd.content) if etcd and etcd.content else ([], 1)
            self.cluster.restart(objs, revision, bootstrap_token=str(config.cluster.get("token") or ""))
        self._task("bootstrap", self._apply_inline(config) if self._begun else self._bootstrap(config))
        self._begun = True

    async def snapshot(self, node: TalosMachine) -> bytes:
        """A snapshot of etcd."""
        etcd = node.disk.etcd
        members = {f"{m.id:016x}": {"name": m.hostname} for m in etcd.members.values()} if etcd else {}
        return snapshots.written(self.store.contents(), members, self.store.storage.revision)

    def on_node_up(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """Start the node's kubelet, and on a control plane its API server."""
        self._task(node.vm.uuid, self._join(node, config))

    def on_node_down(self, node: TalosMachine) -> None:
        """Stop the node's kubelet and API server."""
        for name in (node.vm.uuid, f"follow {node.vm.uuid}"):
            if task := self._tasks.pop(name, None):
                task.cancel()
        if kubelet := self._kubelets.pop(node.vm.uuid, None):
            kubelet.stop()
        for listener in self._listeners.pop(node.vm.uuid, []):
            self._close(listener)
        self._task("share", self.shared.give(lost=node.vm.uuid))

    def on_config(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """Follow the authorities of a configuration, then its images: static pods one by one, then the kubelet."""
        if node.vm.uuid in self._kubelets:
            if task := self._tasks.pop(f"follow {node.vm.uuid}", None):
                task.cancel()
            self._task(f"follow {node.vm.uuid}", self._follow(node, config))

    async def _follow(self, node: TalosMachine, config: MachineConfiguration) -> None:
        info = node_info(node, config, self._version)
        if self._authorities.get(node.vm.uuid) != config.cluster_authorities:
            await self._take_over(node, config, info)
        for part in STATIC_PODS if config.is_control_plane else ():
            pod = self.store.find("v1", "Pod", f"{part}-{info.name}", "kube-system")
            if pod is None or image_of(pod) != image_of(static_pod(part, info)):
                await self._replace(node, config, part, info)
        node_object = self.store.find("v1", "Node", info.name) or {}
        if ((node_object.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion") != info.kubernetes:
            self._kubelets.pop(node.vm.uuid).stop()
            node.set_service("kubelet", WAITING_FOR_CRI)
            await self._fetched(node, str((config.machine.get("kubelet") or {}).get("image")))
            await self._clock.sleep(node.nodes.delays.kubelet)
            node.set_service("kubelet", UP)
            self._kubelets[node.vm.uuid] = self.cluster.join(info)

    async def _take_over(self, node: TalosMachine, config: MachineConfiguration, info: NodeInfo) -> None:
        """Other authorities: an API server starts again with them, a kubelet whose certificate is of none of them too.

        A kubelet of another node whose certificate no API server accepts any more is not let in.
        """
        uuid, accepted = node.vm.uuid, config.cluster_authorities
        if config.is_control_plane:
            await self._replace(node, config, "kube-apiserver", info)
            self.cluster.take_over(pair(config.cluster.get("ca")), accepted)
        self._authorities[uuid] = accepted
        if kubelet := self.cluster.trust(info, accepted):
            self._kubelets[uuid] = kubelet
        if config.is_control_plane:
            self.cluster.refuse_others({crt for server in self._listeners for crt in self._authorities[server]})

    async def _replace(self, node: TalosMachine, config: MachineConfiguration, part: str, info: NodeInfo) -> None:
        """Replace a static pod; an API server is away meanwhile, and another takes the shared address over."""
        serves = part == "kube-apiserver"
        listeners = self._listeners.pop(node.vm.uuid, []) if serves else []
        for listener in listeners:
            await self.cluster.api.stop(listener)
        if serves:
            await self.shared.give(lost=node.vm.uuid)
        remove_static_pod(self.store, part, info)
        node.missing_pods.add(part)
        node.publish()
        await self._fetched(node, image_of(static_pod(part, info)))
        while serves and self._faults.on("kube.api-server-fails"):
            self._ended[node.vm.uuid] = f"{self._clock.now():.0f} starts\nError: unknown flag: --without-a-meaning\n"
            await self._clock.sleep(RESTART)
        self._ended.pop(node.vm.uuid, None)
        await self._clock.sleep(RESTART)
        if serves:
            await self._listen(node, config)
        self.store.create(static_pod(part, info))
        node.missing_pods.discard(part)
        node.publish()
        pods = self.store.list("v1", "Pod", "kube-system", labels="k8s-app=kube-apiserver")
        tags = [image_of(pod).rpartition(":")[2].partition("-")[0] for pod in pods]
        self.cluster.api.serve_as(min(tags, key=ordered, default=self.cluster.api.version))

    async def _fetched(self, node: TalosMachine, image: str) -> None:
        """Fetch an image that the node does not have yet, however long its registry lacks it."""
        while image not in node.disk.images:
            await self._clock.sleep(PULL_SECONDS)
            if node.nodes.has_image(image):
                node.disk.images.add(image)

    def logs(self, node: TalosMachine) -> Mapping[str, str]:
        """The log of an API server that keeps ending; no other: only few fields of a configuration are used."""
        return {"kube-apiserver": log} if (log := self._ended.get(node.vm.uuid)) else {}

    async def stop(self) -> None:
        """Stop all tasks and the cluster."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self.cluster.stop()

    def _task(self, name: str, work: Any) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(_log_error)

    async def _bootstrap(self, config: MachineConfiguration) -> None:
        await self._clock.sleep(API_DELAY)
        token = str(config.cluster.get("token") or "")
        self.cluster.start_controllers(pair(config.cluster.get("ca")), bootstrap_token=token)
        self._bootstrapped.set()
        self._ready()
        await self._apply_inline(config)

    async def _apply_inline(self, config: MachineConfiguration) -> None:
        """Apply the inline manifests like Talos: server-side, with its field manager, until each is accepted."""
        texts = [entry.get("contents") or "" for entry in config.cluster.get("inlineManifests") or ()]
        for manifest in [document for text in texts for document in manifests.load(text) if document]:
            for _ in range(TRIES):
                try:
                    self.cluster.api.store.apply(manifest, manager="talos", force=True)
                    break
                except ApiError as error:
                    last = error
                    await asyncio.sleep(RETRY)
            else:
                _log.error("inline manifest %s: %s", manifest.get("metadata"), last)

    async def _join(self, node: TalosMachine, config: MachineConfiguration) -> None:
        await self._bootstrapped.wait()
        if config.is_control_plane:
            await self._listen(node, config)
        self._authorities[node.vm.uuid] = config.cluster_authorities
        info = node_info(node, config, self._version)
        self._kubelets[node.vm.uuid] = self.cluster.join(info, wiped=not node.disk.kubelet)
        node.disk.kubelet = True

    async def _listen(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """Serve the API at the node's address, and at the shared address if no other node serves it."""
        self._servers[node.vm.uuid] = node, config
        self._listeners[node.vm.uuid] = [await self._serve(node, config, node.address)]
        await self.shared.give()

    async def _serve(self, node: TalosMachine, config: MachineConfiguration, address: str) -> HttpServer:
        context = server_context(node.address, config)
        return await self.cluster.api.start(bound(self._sockets[address].getsockname()), context)

    async def _serve_shared(self, uuid: str) -> HttpServer:
        return await self._serve(*self._servers[uuid], self._address)

    def _close(self, listener: HttpServer) -> None:
        self._task(f"close {id(listener)}", self.cluster.api.stop(listener))


def server_context(address: str, config: MachineConfiguration) -> ssl.SSLContext:
    """The TLS context of an API server: a certificate of the cluster's CA for the names in the configuration."""
    authority = pair(config.cluster.get("ca"))
    names = [*((config.cluster.get("apiServer") or {}).get("certSANs") or ()), "kubernetes", "localhost"]
    names += [address, "127.0.0.1", "10.96.0.1"]
    issued = issue_for(authority, map(str, names), common_name="kube-apiserver")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata="\n".join(config.cluster_authorities))
    context.verify_mode = ssl.CERT_OPTIONAL
    pki.load_identity(context, issued)
    return context


def _log_error(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.error("%s: %r", task.get_name(), error, exc_info=error)
