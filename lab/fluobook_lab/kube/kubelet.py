"""One node's kubelet: asks for its certificates, registers the Node and renews its lease until it is stopped."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from fluobook_lab.kube.controllers.certificates import (
    API_VERSION as CSR_VERSION,
)
from fluobook_lab.kube.controllers.certificates import KIND as CSR_KIND
from fluobook_lab.kube.controllers.certificates import KUBELET_SERVING
from fluobook_lab.kube.controllers.nodes import lease
from fluobook_lab.kube.identity import BOOTSTRAPPERS, User, Write
from fluobook_lab.kube.nodeinfo import NodeInfo, client_request, node_object, node_status, serving_request, static_pod
from fluobook_lab.kube.objects import is_true, name_of

if TYPE_CHECKING:
    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.controllers.nodes import Heartbeats
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store
    from fluobook_lab.kube.watching import Watch

LEASE_SECONDS = 10.0
"""Real seconds between renewals of the lease, as kubelets have it; its times are real ones too."""
REFUSED_SECONDS = 10.0
"""World seconds after which a refused request is followed by another."""
RETRY_SECONDS = 900.0
"""World seconds after which a serving request that was not answered is filed again."""

_log = logging.getLogger(__name__)

__all__ = ["Kubelet", "NodeInfo"]


class Kubelet:
    """A kubelet that lives until `stop`; `start` it again after a reboot.

    Args:
        store: the cluster.
        clock: the world clock.
        node: the machine.
        heartbeats: where it says that it lives.
        bootstrap_user: the name of the bootstrap token's user.
        pod_cidr: the Node's own part of the pod network.
        certified: it was here before, and its certificates are on its disk.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        node: NodeInfo,
        heartbeats: Heartbeats,
        *,
        bootstrap_user: str,
        pod_cidr: str,
        certified: bool = False,
    ) -> None:
        self._store = store
        self._clock = clock
        self._node = node
        self._heartbeats = heartbeats
        self._bootstrap = User(
            bootstrap_user, frozenset({BOOTSTRAPPERS, "system:bootstrappers:nodes", "system:authenticated"})
        )
        self._pod_cidr = pod_cidr
        self._tasks: list[asyncio.Task[None]] = []
        self._has_client_certificate = certified
        self._may_have_serving_certificate = certified

    def has_certificates_of(self, node: NodeInfo) -> bool:
        """Whether it is that machine, and has been let in."""
        return self._has_client_certificate and (node.name, node.uuid) == (self._node.name, self._node.uuid)

    def start(self) -> None:
        """Begin; returns at once."""
        task = asyncio.create_task(self._run(), name=f"kubelet {self._node.name}")
        task.add_done_callback(_tell)
        self._tasks = [task]

    def stop(self) -> None:
        """End at once, as a power cut does: the Node stays and becomes NotReady after its grace period."""
        self._heartbeats.end(self._node.name)
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._may_have_serving_certificate = True

    async def _run(self) -> None:
        if not self._has_client_certificate:
            await self._certified(client_request(self._node), self._bootstrap)
            self._has_client_certificate = True
        self._register()
        self._static_pods()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew())
            if self._node.serving_certificate:
                group.create_task(self._serve())

    async def _renew(self) -> None:
        wanted = lease(self._node.name)
        if self._lease() is None:
            self._store.create(wanted)
        while True:
            self._store.update(lease(self._node.name))
            await asyncio.sleep(LEASE_SECONDS)

    def _lease(self) -> Obj | None:
        wanted = lease(self._node.name)
        return self._store.find(wanted["apiVersion"], "Lease", self._node.name, wanted["metadata"]["namespace"])

    async def _serve(self) -> None:
        """Ask for a serving certificate until there is one; a request left lying is filed again."""
        while not (self._may_have_serving_certificate and self._has_serving_certificate()):
            if await self._certified(serving_request(self._node), self._node.user, RETRY_SECONDS):
                return

    async def _certified(self, request: Obj, user: User, patience: float | None = None) -> bool:
        """File a request and wait for its certificate; False if it is refused, or patience ends."""
        watch = self._store.watch(CSR_VERSION, CSR_KIND)
        try:
            name = name_of(self._store.create(request, Write(user=user)))
            answer = asyncio.create_task(_answer(watch, name))
            ending = [asyncio.create_task(self._clock.sleep(patience))] if patience else []
            try:
                await asyncio.wait([answer, *ending], return_when=asyncio.FIRST_COMPLETED)
                certified = answer.done() and answer.result()
            finally:
                for task in (answer, *ending):
                    task.cancel()
        finally:
            watch.close()
        if answer.done() and not certified:
            await self._clock.sleep(REFUSED_SECONDS)
        return certified

    def _has_serving_certificate(self) -> bool:
        requests = self._store.list(CSR_VERSION, CSR_KIND)
        mine = [
            r
            for r in requests
            if r["spec"]["signerName"] == KUBELET_SERVING and r["spec"]["username"] == self._node.user.name
        ]
        return any((r.get("status") or {}).get("certificate") for r in mine)

    def _register(self) -> None:
        node = self._store.find("v1", "Node", self._node.name)
        self._heartbeats.begin(self._node.name)
        if node is None:
            self._store.create(node_object(self._node, self._pod_cidr))
            return
        self._store.set_status(
            node,
            {**node.get("status", {}), **node_status(self._node, (node.get("status") or {}).get("conditions") or [])},
        )

    def _static_pods(self) -> None:
        """Mirror pods of the control plane, which kubelets run from files and show in the API."""
        if self._node.role != "controlplane":
            return
        for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
            name = f"{component}-{self._node.name}"
            if self._store.find("v1", "Pod", name, "kube-system") is None:
                self._store.create(static_pod(component, self._node))


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s failed", task.get_name(), exc_info=error)


async def _answer(watch: Watch, name: str) -> bool:
    """Whether a request got its certificate, once that is decided."""
    async for event in watch:
        csr = event.object
        if name_of(csr) == name and (csr.get("status") or {}).get("certificate"):
            return True
        if name_of(csr) == name and (event.type == "DELETED" or is_true(csr, "Denied") or is_true(csr, "Failed")):
            return False
    return False
