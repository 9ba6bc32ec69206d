"""What happens to the real Kubernetes when Talos nodes come and go: the engine's counterpart of `KubernetesSide`."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

from fluobook.errors import FluobookError
from fluobook.kubernetes import manifests
from fluobook.machine.node import subnets_contain
from fluobook_lab.engines import audit, operators
from fluobook_lab.engines.control_plane import ControlPlane
from fluobook_lab.engines.kubelet import LINES, RealKubelet
from fluobook_lab.engines.kubelet_flags import refused_by_kubelet, refused_by_talos
from fluobook_lab.engines.kubelet_server import KubeletServer
from fluobook_lab.engines.mirror import Mirror, MirroredStore
from fluobook_lab.engines.passage import Passage
from fluobook_lab.engines.processes import tail
from fluobook_lab.engines.requests import MERGE, NOBODY, Api
from fluobook_lab.kube import system
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.nodeinfo import NodeInfo
from fluobook_lab.talos.config import pair

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from fluobook_lab.clock import Clock
    from fluobook_lab.engines.control_plane import Server
    from fluobook_lab.http import Request
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.talos import MachineConfiguration, TalosMachine

RETRY = 0.2
"""Real seconds between two tries of what the API does not take yet."""
TRIES = 150
RESTART = 2.0
"""Real seconds until what a document made fail is tried again."""
ROLE = "node-role.kubernetes.io/control-plane"
NO_ADDRESS = (
    "no suitable node IP found, please make sure .machine.kubelet.nodeIP filters and pod/service subnets are set up"
    " correctly"
)
"""Talos' own words."""

_log = logging.getLogger(__name__)
T = TypeVar("T")


class RealKubernetes:
    """The hooks that Talos nodes call, and the programs behind them.

    Args:
        sockets: reserved sockets of the API, by the address it is asked for.
        shared: the address that the control planes share, or "".
        programs: where the engine's programs are, by name.
        folder: for their files and logs.
        clock: the world clock.
        version: of Kubernetes, such as 1.35.4.
        seed: makes the operators' delays the same in every run.
        ready: called once, when the API answers.

    Attributes:
        store: the cluster's objects as the lab's other parts read them.
        first: the first API server, once it is there.
    """

    def __init__(
        self,
        sockets: Mapping[str, socket.socket],
        shared: str,
        *,
        programs: Mapping[str, str],
        folder: Path,
        clock: Clock,
        version: str,
        seed: int,
        ready: Callable[[], None],
    ) -> None:
        self._sockets, self._shared, self.clock, self._ready = sockets, shared, clock, ready
        self._version = version
        self.plane = ControlPlane(programs, folder)
        store = MirroredStore()
        self._controllers = operators.controllers(store, clock, seed)
        self.mirror = Mirror(store, operators.kinds(self._controllers))
        self.store = store
        self._operating: list[asyncio.Task[None]] = []
        self._begun, self._serving = asyncio.Event(), asyncio.Event()
        self._kubelets: dict[str, RealKubelet] = {}
        self._passages: dict[str, list[Passage]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._refusals: dict[tuple[str, str], deque[str]] = {}
        self._admin: Api | None = None
        self.first: Server | None = None

    @property
    def requests(self) -> Sequence[Request]:
        """What the API servers' audit logs tell of requests from outside the cluster."""
        return audit.requests(self.plane.audits(), self.clock)

    def on_bootstrap(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """The first etcd member runs."""
        self._task("bootstrap", self._begin(node, config))

    def on_node_up(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """A kubelet runs; on a control plane an API server too."""
        self._task(node.vm.uuid, self._join(node, config))

    def on_node_down(self, node: TalosMachine) -> None:
        """Its kubelet and its API server are gone."""
        if task := self._tasks.pop(node.vm.uuid, None):
            task.cancel()
        for passage in self._passages.pop(node.vm.uuid, []):
            passage.close()
        if kubelet := self._kubelets.get(node.vm.uuid):
            self._task(f"stop {node.hostname}", kubelet.stop())
        self._task(f"end {node.hostname}", self.plane.end(node.hostname))

    def on_config(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """A configuration without a reboot changes nothing that the lab plays."""

    def logs(self, node: TalosMachine) -> Mapping[str, str]:
        """What Talos' controllers, the kubelet and the API server of a node have to say."""
        uuid = node.vm.uuid
        told = {log: "".join(self._refusals.get((uuid, log), ())) for log in ("controller-runtime", "kubelet")}
        if kubelet := self._kubelets.get(node.vm.uuid):
            told["kubelet"] += "".join(kubelet.log)
        told |= {program: tail(log, LINES) for program, log in self.plane.logs_of(node.hostname).items()}
        return told

    async def stop(self) -> None:
        """End everything."""
        tasks = [*self._tasks.values(), *self._operating]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(kubelet.stop() for kubelet in self._kubelets.values()))
        for passage in [one for passages in self._passages.values() for one in passages]:
            passage.close()
        await self.mirror.stop()
        if self._admin:
            await self._admin.close()
        await self.plane.stop()

    def _task(self, name: str, work: Any) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(_tell)

    async def _begin(self, node: TalosMachine, config: MachineConfiguration) -> None:
        await self._until_done(node, lambda: self.plane.begin(node.hostname, config, node.address))
        self._begun.set()

    async def _join(self, node: TalosMachine, config: MachineConfiguration) -> None:
        await self._begun.wait()
        if config.is_control_plane:
            await self._serve(node, config)
        await self._serving.wait()
        if (kubelet := self._kubelets.get(node.vm.uuid)) is None:
            kubelet = await self._until_done(node, partial(self._kubelet, node, config))
        self._kubelets[node.vm.uuid] = kubelet
        kubelet.start()
        await self._label(_node_info(node, config, self._version))

    async def _kubelet(self, node: TalosMachine, config: MachineConfiguration) -> RealKubelet:
        """What Talos makes of a configuration: without an address for its node the kubelet does not start."""
        told = config.machine.get("kubelet") or {}
        if not subnets_contain((told.get("nodeIP") or {}).get("validSubnets") or (), node.address):
            raise FluobookError(NO_ADDRESS)
        if said := refused_by_talos(told.get("extraArgs") or ()):
            raise FluobookError(said)
        while said := refused_by_kubelet(told.get("extraArgs") or ()):
            self._complain(node, said, log="kubelet")
            await asyncio.sleep(RESTART)
        info = _node_info(node, config, self._version)
        return RealKubelet(
            info,
            self._connect(config),
            str(config.cluster.get("token") or ""),
            server=KubeletServer(pair(config.cluster.get("ca")).crt, info.name),
            places=self.plane.egress.places,
        )

    async def _serve(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """Answer at the node's address, and at the shared one if nobody does yet."""
        server = await self._until_done(node, lambda: self.plane.serve(node.hostname, config, node.address))
        shared = self._shared and not any(len(held) > 1 for held in self._passages.values())
        for address in [node.address, *([self._shared] if shared else [])]:
            passage = Passage(server.port)
            await passage.open(self._sockets[address])
            self._passages.setdefault(node.vm.uuid, []).append(passage)
        if self._admin is None:
            await self._first(node, server)

    async def _until_done(self, node: TalosMachine, work: Callable[[], Awaitable[T]]) -> T:
        """As Talos' controllers and the kubelet do: again and again, though a wrong document never gets better."""
        while True:
            try:
                return await work()
            except FluobookError as error:
                self._complain(node, "; ".join(filter(None, (error.message, error.cause))))
            except (AttributeError, LookupError, TypeError, ValueError, ssl.SSLError) as error:
                self._complain(node, f"the machine configuration cannot be read: {error}")
            await asyncio.sleep(RESTART)

    def _complain(self, node: TalosMachine, said: str, *, log: str = "controller-runtime") -> None:
        """Write a line into a log of a node."""
        _log.error("%s: %s", node.hostname, said)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._refusals.setdefault((node.vm.uuid, log), deque(maxlen=LINES)).append(f"{stamp} {said}\n")

    async def _first(self, node: TalosMachine, server: Server) -> None:
        """The cluster's first API server is there: what one control plane does for all."""
        admin = self._admin = self.plane.administrator(server)
        self.first = server
        await self._until_done(node, partial(self.plane.control, server))
        self._task("controllers", self._mind(node, server))
        await self._apply(node, await self._until_done(node, partial(_of_talos, server.config)))
        self._serving.set()
        self.mirror.start(admin)
        self._operating = operators.start(self.store, self.clock, self._controllers)
        self._ready()
        await self._apply(node, await self._until_done(node, partial(_inline, server.config)))

    async def _mind(self, node: TalosMachine, server: Server) -> None:
        """Start again what ended, as a kubelet does with static pods."""
        while True:
            try:
                await self.plane.ended(server)
            except FluobookError as error:
                self._complain(node, "; ".join(filter(None, (error.message, error.cause))))
            await asyncio.sleep(RESTART)
            await self._until_done(node, partial(self.plane.control, server))

    async def _apply(self, node: TalosMachine, objs: Iterable[Obj]) -> None:
        for obj in objs:
            if self._admin and (said := await self._applied(self._admin, obj)):
                self._complain(node, f"error applying manifest: {said}")

    async def _applied(self, admin: Api, obj: Obj) -> str:
        """As Talos does: again and again until it is taken; returns why it was not."""
        for _ in range(TRIES):
            try:
                await admin.apply(obj, manager=system.MANAGER)
            except (ApiError, OSError, aiohttp.ClientError) as error:
                last = error
                await asyncio.sleep(RETRY)
            else:
                return ""
        return f"{obj.get('kind')} {(obj.get('metadata') or {}).get('name')}: {last}"

    def _connect(self, config: MachineConfiguration) -> Callable[..., Api]:
        """A client as the node's own configuration makes it: its endpoint, its authority."""
        host = config.endpoint.removeprefix("https://").rpartition(":")[0]
        place = self._sockets[host].getsockname() if host in self._sockets else NOBODY
        return partial(Api, config.endpoint, pair(config.cluster.get("ca")).crt, place=place)

    async def _label(self, info: NodeInfo) -> None:
        """Talos sets the labels that a kubelet may not set itself, once the Node is there."""
        if self._admin is None:
            return
        labels = info.labels | ({ROLE: ""} if info.role == "controlplane" else {})
        path = f"/api/v1/nodes/{info.name}"
        await self._admin.until_answered(path)
        await self._admin.send("PATCH", path, {"metadata": {"labels": labels}}, media=MERGE)


async def _of_talos(config: MachineConfiguration) -> list[Obj]:
    """What Talos itself brings: the bootstrap token, roles, DNS."""
    cidr = ((config.cluster.get("network") or {}).get("serviceSubnets") or ["10.96.0.0/12"])[0]
    return list(system.of_talos(bootstrap_token=str(config.cluster.get("token") or ""), service_cidr=cidr))


async def _inline(config: MachineConfiguration) -> list[Obj]:
    texts = [entry.get("contents") or "" for entry in config.cluster.get("inlineManifests") or ()]
    return [document for text in texts for document in manifests.load(text) if document]


def _node_info(node: TalosMachine, config: MachineConfiguration, version: str) -> NodeInfo:
    arguments = (config.machine.get("kubelet") or {}).get("extraArgs") or {}
    tainted = config.is_control_plane and not config.cluster.get("allowSchedulingOnControlPlanes")
    return NodeInfo(
        node.hostname,
        (node.address,),
        role=config.type,
        cores=node.vm.cores,
        memory_mib=node.vm.memory_mib,
        kubernetes=f"v{version}",
        uuid=node.vm.uuid,
        labels={str(k): str(v) for k, v in (config.machine.get("nodeLabels") or {}).items()},
        taints=({"key": ROLE, "effect": "NoSchedule"},) if tainted else (),
        serving_certificate=str(arguments.get("rotate-server-certificates", "")).lower() == "true",
    )


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.error("%s: %r", task.get_name(), error, exc_info=error)
