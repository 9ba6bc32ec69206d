"""One node's kubelet against the real API: TLS bootstrap, its Node, its lease, and a serving request that waits.

It uses what the node's own machine configuration gives it, a token and an authority, so wrong ones are refused here.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import aiohttp

from fluobook.machine.pki import KeyPair
from fluobook_lab.engines.kubelet_server import PORT, KubeletServer
from fluobook_lab.engines.requests import MERGE, Api
from fluobook_lab.kube.controllers.nodes import CNI_LABEL, LEASE_NAMESPACE, NO_CNI, lease
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.nodeinfo import NodeInfo, node_status, requested, signing_request, static_pod
from fluobook_lab.kube.objects import is_true, with_condition

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from fluobook_lab.kube.objects import Obj

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases"
LEASE_SECONDS, LOOK_SECONDS, PATIENCE = 10.0, 0.5, 900.0
"""Real seconds: between renewals, between looks at what it waits for, and until an unanswered request is filed anew."""
AGAIN = 2.0
"""Real seconds after which what the API refused is tried again, as kubelets do."""

LINES = 100
"""How much of its log is kept."""

_GO = {
    "unable to get local issuer certificate": "certificate signed by unknown authority",
    "self-signed certificate": "certificate signed by unknown authority",
    "certificate has expired": "certificate has expired or is not yet valid",
}
_log = logging.getLogger(__name__)
_Lost = (ApiError, OSError, aiohttp.ClientError, TimeoutError, ValueError)


class RealKubelet:
    """A kubelet that lives until `stop`.

    Args:
        node: its machine.
        connect: makes a client of the API with the node's authority, and a token or a certificate.
        token: the bootstrap token.
        server: what it serves, once it has its certificate.
        places: where it tells its server's port, by node address and port.
    """

    def __init__(
        self,
        node: NodeInfo,
        connect: Callable[..., Api],
        token: str,
        *,
        server: KubeletServer,
        places: MutableMapping[str, int],
    ) -> None:
        self._node, self._connect, self._token = node, connect, token
        self._server, self._places = server, places
        self._serving: KeyPair | None = None
        self._identity: KeyPair | None = None
        self._api: Api | None = None
        self._task: asyncio.Task[None] | None = None
        self.log: deque[str] = deque(maxlen=LINES)

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._run(), name=f"kubelet {self._node.name}")

    async def stop(self) -> None:
        """End at once, as a power cut does; its certificates stay on its disk."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._places.pop(self._place, None)
        await self._server.stop()
        if self._api:
            await self._api.close()
            self._api = None

    @property
    def _place(self) -> str:
        return f"{self._node.addresses[0]}:{PORT}"

    async def _run(self) -> None:
        while True:
            try:
                await self._live()
            except _Lost as error:
                _log.warning("kubelet of %s: %s", self._node.name, error)
                self.log.append(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {_words(error)}\n")
                await asyncio.sleep(AGAIN)

    async def _live(self) -> None:
        if self._identity is None:
            bootstrap = self._connect(token=self._token)
            try:
                self._identity = await self._certified(bootstrap, "client")
            finally:
                await bootstrap.close()
        api = self._api = self._api or self._connect(identity=self._identity)
        uid = await self._register(api)
        async with asyncio.TaskGroup() as group:
            group.create_task(_again(self._renew, api))
            group.create_task(_again(self._report, api))
            if self._node.role == "controlplane":
                group.create_task(self._mirror(api, uid))
            if self._node.serving_certificate:
                group.create_task(_again(self._serve, api))

    async def _certified(self, api: Api, use: str) -> KeyPair | None:
        """File a request and wait for its certificate; None once it is refused, or patience ends."""
        pem, key = requested(self._node, names=use == "server")
        signer = {"client": "kubernetes.io/kube-apiserver-client-kubelet", "server": "kubernetes.io/kubelet-serving"}
        filed = await api.send("POST", CSRS, signing_request(pem, signer[use], f"{use} auth"))
        for _ in range(int(PATIENCE / LOOK_SECONDS)):
            found = await api.get(f"{CSRS}/{filed['metadata']['name']}")
            if certificate := (found.get("status") or {}).get("certificate"):
                return KeyPair(base64.b64decode(certificate).decode(), key)
            if is_true(found, "Denied") or is_true(found, "Failed"):
                return None
            await asyncio.sleep(LOOK_SECONDS)
        return None

    async def _serve(self, api: Api) -> None:
        while self._serving is None:
            self._serving = await self._certified(api, "server")
        if self._place not in self._places:
            await self._server.start(self._serving)
            self._places[self._place] = self._server.port

    async def _register(self, api: Api) -> str:
        """Create the Node as the node itself may: labels of roles are Talos' to set, as an administrator."""
        labels = {"kubernetes.io/hostname": self._node.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        metadata = {"name": self._node.name, "labels": labels}
        spec: dict[str, Any] = {"providerID": f"proxmox://cluster/{self._node.uuid}"} if self._node.uuid else {}
        if self._node.taints:
            spec["taints"] = list(self._node.taints)
        try:
            made = await api.send(
                "POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec}
            )
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            made = await api.get(f"/api/v1/nodes/{self._node.name}")
        return str(made["metadata"]["uid"])

    async def _renew(self, api: Api) -> None:
        wanted = lease(self._node.name)
        try:
            await api.send("POST", LEASES, wanted)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        while True:
            own = lease(self._node.name)["spec"]
            await api.send("PATCH", f"{LEASES}/{self._node.name}", {"spec": own}, media=MERGE)
            await asyncio.sleep(LEASE_SECONDS)

    async def _report(self, api: Api) -> None:
        """Tell the Node's status: Ready once Cilium's agent runs here."""
        told: bool | None = None
        while True:
            networked = await self._has_cni(api)
            if networked is not told:
                await self._tell(api, networked=networked)
                told = networked
            await asyncio.sleep(LOOK_SECONDS if not told else LEASE_SECONDS)

    async def _has_cni(self, api: Api) -> bool:
        key, value = CNI_LABEL
        query = {"fieldSelector": f"spec.nodeName={self._node.name}", "labelSelector": f"{key}={value}"}
        pods = await api.get("/api/v1/namespaces/kube-system/pods", **query)
        return any(is_true(pod, "Ready") for pod in pods["items"])

    async def _tell(self, api: Api, *, networked: bool) -> None:
        path = f"/api/v1/nodes/{self._node.name}"
        node = await api.get(path)
        ready = ("True", "KubeletReady", "kubelet is posting ready status")
        status: Obj = node_status(self._node, (node.get("status") or {}).get("conditions") or [])
        told = ready if networked else ("False", "KubeletNotReady", NO_CNI)
        status["conditions"] = with_condition(status["conditions"], "Ready", *told)
        if networked:
            up = ("False", "CiliumIsUp", "Cilium is running on this node")
            status["conditions"] = with_condition(status["conditions"], "NetworkUnavailable", *up)
        await api.send("PATCH", f"{path}/status", {"status": status}, media=MERGE)

    async def _mirror(self, api: Api, uid: str) -> None:
        """Show the static pods of the control plane."""
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._node.name, "uid": uid, "controller": True}
        for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
            pod = static_pod(component, self._node)
            pod["metadata"]["ownerReferences"] = [owner]
            try:
                await api.send("POST", "/api/v1/namespaces/kube-system/pods", pod)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    _log.warning("static pod of %s: %s", self._node.name, error.message)


def _words(error: BaseException) -> str:
    """An error as a kubelet writes it: certificates are refused in Go's words."""
    text = getattr(error, "message", "") or str(error)
    if "certificate verify failed" not in text:
        return text
    told = next((words for python, words in _GO.items() if python in text), text)
    return f"tls: failed to verify certificate: x509: {told}"


async def _again(work: Callable[[Api], Any], api: Api) -> None:
    """Do it until it is done, over whatever is lost on the way."""
    while True:
        try:
            await work(api)
        except _Lost as error:
            _log.warning("%s: %s", getattr(work, "__name__", ""), error)
            await asyncio.sleep(AGAIN)
        else:
            return
