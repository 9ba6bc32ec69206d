"""One node's kubelet: asks for its certificates, registers the Node and renews its lease until it is stopped."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

from fluobook.lab.kube.controllers.certificates import (
    API_VERSION as CSR_VERSION,
)
from fluobook.lab.kube.controllers.certificates import KIND as CSR_KIND
from fluobook.lab.kube.controllers.certificates import KUBELET_CLIENT, KUBELET_SERVING
from fluobook.lab.kube.controllers.nodes import lease
from fluobook.lab.kube.identity import BOOTSTRAPPERS, User, Write
from fluobook.lab.kube.nodeinfo import NodeInfo, node_object, node_status, request_pem, static_pod
from fluobook.lab.kube.objects import is_true, name_of

if TYPE_CHECKING:
    from fluobook.lab.clock import Clock
    from fluobook.lab.kube.controllers.nodes import Heartbeats
    from fluobook.lab.kube.objects import Obj
    from fluobook.lab.kube.store import Store
    from fluobook.lab.kube.watching import Watch

LEASE_SECONDS = 10.0
"""Real seconds between renewals of the lease, as kubelets have it; its times are real ones too."""
REFUSED_SECONDS = 10.0
"""World seconds after which a refused request is followed by another."""
RETRY_SECONDS = 900.0
"""World seconds after which a serving request that was not answered is filed again."""

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
    """

    def __init__(
        self, store: Store, clock: Clock, node: NodeInfo, heartbeats: Heartbeats, *, bootstrap_user: str, pod_cidr: str
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
        self._has_client_certificate = False

    def start(self) -> None:
        """Begin; returns at once."""
        self._tasks = [asyncio.create_task(self._run())]

    def stop(self) -> None:
        """End at once, as a power cut does: the Node stays and becomes NotReady after its grace period."""
        self._heartbeats.end(self._node.name)
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _run(self) -> None:
        if not self._has_client_certificate:
            await self._certified(KUBELET_CLIENT, self._bootstrap)
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
        while not self._has_certificate(KUBELET_SERVING):
            if await self._certified(KUBELET_SERVING, self._node.user, RETRY_SECONDS):
                return

    async def _certified(self, signer: str, user: User, patience: float | None = None) -> bool:
        """File a request and wait for its certificate; False if it is refused, or patience ends."""
        watch = self._store.watch(CSR_VERSION, CSR_KIND)
        try:
            name = name_of(self._store.create(self._request(signer), Write(user=user)))
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

    def _has_certificate(self, signer: str) -> bool:
        requests = self._store.list(CSR_VERSION, CSR_KIND)
        mine = [
            r for r in requests if r["spec"]["signerName"] == signer and r["spec"]["username"] == self._node.user.name
        ]
        return any((r.get("status") or {}).get("certificate") for r in mine)

    def _request(self, signer: str) -> Obj:
        serving = signer == KUBELET_SERVING
        usage = "server auth" if serving else "client auth"
        pem = request_pem(self._node, names=serving)
        spec = {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": ["digital signature", usage]}
        return {"apiVersion": CSR_VERSION, "kind": CSR_KIND, "metadata": {"generateName": "csr-"}, "spec": spec}

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


async def _answer(watch: Watch, name: str) -> bool:
    """Whether a request got its certificate, once that is decided."""
    async for event in watch:
        csr = event.object
        if name_of(csr) == name and (csr.get("status") or {}).get("certificate"):
            return True
        if name_of(csr) == name and (event.type == "DELETED" or is_true(csr, "Denied") or is_true(csr, "Failed")):
            return False
    return False
