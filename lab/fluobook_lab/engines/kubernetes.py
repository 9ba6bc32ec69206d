"""The real Kubernetes as Talos nodes start and stop: the counterpart of the embedded engine's `KubernetesSide`."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from fluobook.errors import FluobookError
from fluobook.kubernetes import manifests
from fluobook.machine.node import subnets_contain
from fluobook_lab.engines.api import FAILED, MERGE, UNREACHABLE, Api, audited_requests
from fluobook_lab.engines.arguments import refused_by_kubelet, refused_by_talos
from fluobook_lab.engines.control_plane import ControlPlane
from fluobook_lab.engines.kubelet import LOG_LINES, KubeletServer, RealKubelet
from fluobook_lab.engines.mirror import Mirror
from fluobook_lab.engines.network import Forwarder
from fluobook_lab.engines.processes import log_failure, tail
from fluobook_lab.grpc import bound
from fluobook_lab.kube import snapshots, system
from fluobook_lab.kube.kubelet import NodeInfo, node_info
from fluobook_lab.talos.config import pair
from fluobook_lab.talos.shared_address import SharedAddress

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from fluobook_lab.clock import Clock
    from fluobook_lab.engines.control_plane import Server
    from fluobook_lab.faults import Faults
    from fluobook_lab.http import Request
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.talos import MachineConfiguration, TalosMachine

APPLY_INTERVAL, APPLY_ATTEMPTS = 0.2, 150
"""Real seconds between two attempts to apply what the API does not accept yet, and their number."""
RESTART = 2.0
"""Real seconds until what failed because of a document is tried again."""
ROLE = "node-role.kubernetes.io/control-plane"
NO_ADDRESS = (
    "no suitable node IP found, please make sure .machine.kubelet.nodeIP filters and pod/service subnets are set up"
    " correctly"
)
"""Talos' own message."""

_log = logging.getLogger(__name__)
T = TypeVar("T")


class RealKubernetes:
    """The hooks that Talos nodes call, and the programs behind them.

    Args:
        sockets: reserved sockets of the API, by its addresses.
        shared: the address that the control planes share, or "".
        programs: the paths of the engine's programs, by name.
        folder: for their files and logs.
        clock: the lab's clock.
        version: of Kubernetes, such as 1.35.4.
        seed: makes the controllers' delays the same in every run.
        faults: the faults to inject; those of operators alone can happen here.
        ready: called once, when the API is ready.

    Attributes:
        store: the cluster's objects for the lab's other parts.
        first: the first API server, once it is ready.
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
        faults: Faults,
        ready: Callable[[], None],
    ) -> None:
        self._sockets, self._address, self.clock, self._ready = sockets, shared, clock, ready
        self._version = version
        self.plane = ControlPlane(programs, folder)
        self.mirror = Mirror(clock, seed, faults, self.plane.egress.ports)
        self.store = self.mirror.store
        self._bootstrapped, self._serving = asyncio.Event(), asyncio.Event()
        self._kubelets: dict[str, RealKubelet] = {}
        self._forwarders: dict[str, list[Forwarder]] = {}
        self.shared = SharedAddress(shared, self._forwarders, serve=self._serve_shared, close=Forwarder.close)
        self._up: dict[str, tuple[TalosMachine, MachineConfiguration]] = {}
        self._silenced: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._messages: dict[tuple[str, str], deque[str]] = {}
        self._admin: Api | None = None
        self.first: Server | None = None

    @property
    def requests(self) -> Sequence[Request]:
        """The requests from outside the cluster, from the API servers' audit logs."""
        return audited_requests(self.plane.audit_logs(), self.clock)

    @property
    def volumes(self) -> Sequence[tuple[float, str, int, int]]:
        """Nothing: this engine has no Longhorn whose replicas come and go."""
        return ()

    def on_bootstrap(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """The first member of an etcd runs; a second etcd replaces the first, with the snapshot that it begins with."""
        etcd, again = node.disk.etcd, "bootstrap" in self._tasks
        self._bootstrapped.clear()
        work = self._restart(node, config, etcd.content if etcd else b"") if again else self._bootstrap(node, config)
        self._task("bootstrap", work)

    async def snapshot(self, _node: TalosMachine) -> bytes:
        """Etcd's own snapshot; every member of the lab has the same."""
        return await self.plane.snapshot()

    def on_node_up(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """A kubelet runs; on a control plane an API server too, and those come back that were without a quorum."""
        self._up[node.vm.uuid] = node, config
        self._task(node.vm.uuid, self._join(node, config))
        for uuid in [uuid for uuid in self._silenced if _has_quorum(self._up[uuid][0])]:
            self._silenced.discard(uuid)
            self._task(uuid, self._serve(*self._up[uuid]))

    def on_node_down(self, node: TalosMachine) -> None:
        """Its kubelet and its API server end."""
        self._up.pop(node.vm.uuid, None)
        self._silenced.discard(node.vm.uuid)
        self._end_serving(node)
        for uuid, (each, _) in self._up.items():
            if uuid not in self._silenced and not _has_quorum(each):
                self._silenced.add(uuid)
                self._end_serving(each)
        if kubelet := self._kubelets.get(node.vm.uuid):
            self._task(f"stop {node.hostname}", kubelet.stop())

    def _end_serving(self, node: TalosMachine) -> None:
        """End a node's API server; a real one ends too when it cannot reach etcd."""
        if task := self._tasks.pop(node.vm.uuid, None):
            task.cancel()
        for forwarder in self._forwarders.pop(node.vm.uuid, []):
            forwarder.close()
        self._task(f"end {node.hostname}", self.plane.end_server(node.hostname))
        self._task("share", self.shared.give(lost=node.vm.uuid))

    def on_config(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """A configuration that needs no reboot has no effect on Kubernetes in the lab."""

    def logs(self, node: TalosMachine) -> Mapping[str, str]:
        """The logs of Talos' controllers, the kubelet and the control plane's programs on a node."""
        uuid = node.vm.uuid
        logs = {log: "".join(self._messages.get((uuid, log), ())) for log in ("controller-runtime", "kubelet")}
        if kubelet := self._kubelets.get(uuid):
            logs["kubelet"] += "".join(kubelet.log)
        return logs | {program: tail(log, LOG_LINES) for program, log in self.plane.logs_of(node.hostname).items()}

    async def stop(self) -> None:
        """End everything."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await asyncio.gather(*(kubelet.stop() for kubelet in self._kubelets.values()))
        for forwarder in [forwarder for forwarders in self._forwarders.values() for forwarder in forwarders]:
            forwarder.close()
        await self.mirror.stop()
        if self._admin:
            await self._admin.close()
        await self.plane.stop()

    def _task(self, name: str, work: Any) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(log_failure)

    async def _bootstrap(self, node: TalosMachine, config: MachineConfiguration) -> None:
        await self._retried(node, lambda: self.plane.start_etcd(node.hostname, config, node.address))
        self._bootstrapped.set()

    async def _restart(self, node: TalosMachine, config: MachineConfiguration, content: bytes) -> None:
        """Go on with a snapshot; the controllers start again, because what they remember is no longer true."""
        database = snapshots.startable(content) if content else b""
        await self._retried(node, lambda: self.plane.restart_etcd(node.hostname, config, node.address, database))
        if self.first:
            await self.plane.end_controllers(self.first)
        self._bootstrapped.set()

    async def _join(self, node: TalosMachine, config: MachineConfiguration) -> None:
        await self._bootstrapped.wait()
        if config.is_control_plane:
            await self._serve(node, config)
        await self._serving.wait()
        if (kubelet := self._kubelets.get(node.vm.uuid)) is None:
            kubelet = await self._retried(node, partial(self._kubelet, node, config))
        self._kubelets[node.vm.uuid] = kubelet
        info = node_info(node, config, self._version)
        kubelet.start(info)
        await self._label(info)

    async def _kubelet(self, node: TalosMachine, config: MachineConfiguration) -> RealKubelet:
        """The kubelet of a configuration; Talos does not start one without an address for its node.

        Raises:
            FluobookError: Talos refuses the configuration.
        """
        settings = config.machine.get("kubelet") or {}
        if not subnets_contain((settings.get("nodeIP") or {}).get("validSubnets") or (), node.address):
            raise FluobookError(NO_ADDRESS)
        if problem := refused_by_talos(settings.get("extraArgs") or ()):
            raise FluobookError(problem)
        while problem := refused_by_kubelet(settings.get("extraArgs") or ()):
            self._report(node, problem, log="kubelet")
            await asyncio.sleep(RESTART)
        info, token = node_info(node, config, self._version), str(config.cluster.get("token") or "")
        server = KubeletServer(pair(config.cluster.get("ca")).crt, info.name)
        return RealKubelet(info, self._connect(config), token, server=server, ports=self.plane.egress.ports)

    async def _serve(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """Serve at the node's address, and at the shared one if no other node does."""
        server = await self._retried(node, lambda: self.plane.start_server(node.hostname, config, node.address))
        self._forwarders[node.vm.uuid] = [await self._forwarder(server.port, node.address)]
        await self.shared.give()
        if self._admin is None:
            await self._first(node, server)

    async def _serve_shared(self, uuid: str) -> Forwarder:
        return await self._forwarder(self._forwarders[uuid][0].port, self._address)

    async def _forwarder(self, port: int, address: str) -> Forwarder:
        forwarder = Forwarder(port)
        await forwarder.listen(bound(self._sockets[address].getsockname()))
        return forwarder

    async def _retried(self, node: TalosMachine, work: Callable[[], Awaitable[T]]) -> T:
        """Repeat it until it succeeds, as Talos' controllers and the kubelet do even with a wrong document."""
        while True:
            try:
                return await work()
            except FluobookError as error:
                self._report(node, "; ".join(filter(None, (error.message, error.cause))))
            except (AttributeError, LookupError, TypeError, ValueError, ssl.SSLError) as error:
                self._report(node, f"the machine configuration cannot be read: {error}")
            await asyncio.sleep(RESTART)

    def _report(self, node: TalosMachine, message: str, *, log: str = "controller-runtime") -> None:
        """Write a line into a log of a node."""
        _log.error("%s: %s", node.hostname, message)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._messages.setdefault((node.vm.uuid, log), deque(maxlen=LOG_LINES)).append(f"{now} {message}\n")

    async def _first(self, node: TalosMachine, server: Server) -> None:
        """Do what one control plane does for the whole cluster, on its first API server."""
        admin = self._admin = self.plane.administrator(server)
        self.first = server
        await self._retried(node, partial(self.plane.start_controllers, server))
        self._task("controllers", self._supervise(node, server))
        await self._apply(admin, node, await self._retried(node, partial(_of_talos, server.config)))
        self._serving.set()
        await self.mirror.start(admin)
        self._ready()
        await self._apply(admin, node, await self._retried(node, partial(_inline, server.config)))

    async def _supervise(self, node: TalosMachine, server: Server) -> None:
        """Start controllers that ended again, as a kubelet does with static pods."""
        while True:
            try:
                await self.plane.watch_controllers(server)
            except FluobookError as error:
                self._report(node, "; ".join(filter(None, (error.message, error.cause))))
            await asyncio.sleep(RESTART)
            await self._retried(node, partial(self.plane.start_controllers, server))

    async def _apply(self, admin: Api, node: TalosMachine, objs: Iterable[Obj]) -> None:
        """Apply each object as Talos does: repeatedly, until the API accepts it."""
        for obj in objs:
            problem = ""
            for _ in range(APPLY_ATTEMPTS):
                try:
                    await admin.apply(obj, manager=system.MANAGER)
                except FAILED as error:
                    problem = f"{obj.get('kind')} {(obj.get('metadata') or {}).get('name')}: {error}"
                    await asyncio.sleep(APPLY_INTERVAL)
                else:
                    break
            else:
                self._report(node, f"error applying manifest: {problem}")

    def _connect(self, config: MachineConfiguration) -> Callable[..., Api]:
        """A client with the endpoint and the authority of the node's own configuration."""
        host = config.endpoint.removeprefix("https://").rpartition(":")[0]
        address = self._sockets[host].getsockname() if host in self._sockets else UNREACHABLE
        return partial(Api, config.endpoint, pair(config.cluster.get("ca")).crt, address=address)

    async def _label(self, info: NodeInfo) -> None:
        """Set the labels that a kubelet may not set itself, once its Node exists; Talos does so."""
        if self._admin is None:
            return
        labels = info.labels | ({ROLE: ""} if info.role == "controlplane" else {})
        path = f"/api/v1/nodes/{info.name}"
        await self._admin.wait_for(path)
        await self._admin.send("PATCH", path, {"metadata": {"labels": labels}}, media=MERGE)


def _has_quorum(node: TalosMachine) -> bool:
    """Whether the etcd of a control plane has a quorum; true of a worker."""
    etcd = node.disk.etcd
    return etcd is None or etcd.has_quorum


async def _of_talos(config: MachineConfiguration) -> list[Obj]:
    """The manifests of Talos itself: the bootstrap token, roles, DNS."""
    cidr = ((config.cluster.get("network") or {}).get("serviceSubnets") or ["10.96.0.0/12"])[0]
    return list(system.of_talos(bootstrap_token=str(config.cluster.get("token") or ""), service_cidr=cidr))


async def _inline(config: MachineConfiguration) -> list[Obj]:
    texts = [entry.get("contents") or "" for entry in config.cluster.get("inlineManifests") or ()]
    return [document for text in texts for document in manifests.load(text) if document]
