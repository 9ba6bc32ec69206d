"""One node's kubelet against the real API: TLS bootstrap, its Node, its lease, its serving certificate, its server.

It uses the token and the authority of its node's own machine configuration, so the API refuses wrong ones.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fluobook.machine import pki
from fluobook.machine.pki import KeyPair
from fluobook_lab.engines.api import FAILED, MERGE, Api
from fluobook_lab.kube.controllers.nodes import CNI_LABEL, LEASE_NAMESPACE, NO_CNI, lease
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.kubelet import NodeInfo, node_status, requested, signing_request, static_pod
from fluobook_lab.kube.objects import is_true, with_condition

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from fluobook_lab.kube.objects import Obj

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases"
PODS = "/api/v1/namespaces/kube-system/pods"
SIGNERS = {"client": "kubernetes.io/kube-apiserver-client-kubelet", "server": "kubernetes.io/kubelet-serving"}
PORT = 10250
LEASE_INTERVAL, POLL_INTERVAL = 10.0, 0.5
"""Real seconds between lease renewals, and between checks of what it waits for."""
CSR_TIMEOUT = 900.0
"""Real seconds until a CSR without an answer is created again."""
RETRY = 2.0
"""Real seconds until a refused request is repeated, as kubelets do."""
LOG_LINES = 100

_GO_MESSAGES = {
    "unable to get local issuer certificate": "certificate signed by unknown authority",
    "self-signed certificate": "certificate signed by unknown authority",
    "certificate has expired": "certificate has expired or is not yet valid",
}
_log = logging.getLogger(__name__)
_FAILED = (*FAILED, ValueError)


class KubeletServer:
    """What a kubelet serves to API servers: its health and its pods' logs, to clients with a cluster certificate.

    Args:
        authority: PEM of the cluster's certificate authority.
        node: the kubelet's node.
    """

    def __init__(self, authority: str, node: str) -> None:
        self._authority, self._node = authority, node
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, identity: KeyPair) -> None:
        """Serve with a certificate that the cluster signed."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=self._authority)
        context.verify_mode = ssl.CERT_REQUIRED
        pki.load_identity(context, identity)
        app = web.Application()
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _logs(self, request: web.Request) -> web.Response:
        pod, container = request.match_info["pod"], request.match_info["container"]
        return web.Response(text=f"{container} of {pod} is simulated on {self._node}\n")

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")


class RealKubelet:
    """A kubelet that runs until `stop`.

    Args:
        node: its machine.
        connect: makes a client of the API with the node's authority, and a token or a certificate.
        token: the bootstrap token.
        server: what it serves once it has its serving certificate.
        ports: receives its server's port, by node address and port.
    """

    def __init__(
        self,
        node: NodeInfo,
        connect: Callable[..., Api],
        token: str,
        *,
        server: KubeletServer,
        ports: MutableMapping[str, int],
    ) -> None:
        self._node, self._connect, self._token = node, connect, token
        self._server, self._ports, self._address = server, ports, f"{node.addresses[0]}:{PORT}"
        self._path = f"/api/v1/nodes/{node.name}"
        self._serving: KeyPair | None = None
        self._identity: KeyPair | None = None
        self._api: Api | None = None
        self._task: asyncio.Task[None] | None = None
        self.log: deque[str] = deque(maxlen=LOG_LINES)

    def start(self, node: NodeInfo) -> None:
        """Begin after a boot of its machine; returns at once."""
        self._node = node
        self._task = asyncio.create_task(self._run(), name=f"kubelet {self._node.name}")

    async def stop(self) -> None:
        """End at once, as in a power failure; its certificates stay on its disk."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._ports.pop(self._address, None)
        await self._server.stop()
        if self._api:
            await self._api.close()
            self._api = None

    async def _run(self) -> None:
        while True:
            try:
                await self._live()
            except _FAILED as error:
                _log.warning("kubelet of %s: %s", self._node.name, error)
                self.log.append(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {_message(error)}\n")
                await asyncio.sleep(RETRY)

    async def _live(self) -> None:
        if self._identity is None:
            bootstrap = self._connect(token=self._token)
            try:
                self._identity = await self._certificate(bootstrap, "client")
            finally:
                await bootstrap.close()
        api = self._api = self._api or self._connect(identity=self._identity)
        uid = await self._register(api)
        async with asyncio.TaskGroup() as group:
            group.create_task(_retried(self._renew, api))
            group.create_task(_retried(self._report, api))
            if self._node.role == "controlplane":
                group.create_task(self._create_static_pods(api, uid))
            if self._node.serving_certificate:
                group.create_task(_retried(self._serve, api))

    async def _certificate(self, api: Api, use: str) -> KeyPair | None:
        """Create a CSR and wait for its certificate; None if it is denied, or after `CSR_TIMEOUT`."""
        pem, key = requested(self._node, names=use == "server")
        created = await api.send("POST", CSRS, signing_request(pem, SIGNERS[use], f"{use} auth"))
        for _ in range(int(CSR_TIMEOUT / POLL_INTERVAL)):
            csr = await api.get(f"{CSRS}/{created['metadata']['name']}")
            if certificate := (csr.get("status") or {}).get("certificate"):
                return KeyPair(base64.b64decode(certificate).decode(), key)
            if is_true(csr, "Denied") or is_true(csr, "Failed"):
                return None
            await asyncio.sleep(POLL_INTERVAL)
        return None

    async def _serve(self, api: Api) -> None:
        while self._serving is None:
            self._serving = await self._certificate(api, "server")
        if self._address not in self._ports:
            await self._server.start(self._serving)
            self._ports[self._address] = self._server.port

    async def _register(self, api: Api) -> str:
        """Create the Node with the labels that a node may set; Talos adds those of roles as an administrator."""
        labels = {"kubernetes.io/hostname": self._node.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        spec: dict[str, Any] = {"providerID": f"proxmox://cluster/{self._node.uuid}"} if self._node.uuid else {}
        if self._node.taints:
            spec["taints"] = list(self._node.taints)
        metadata = {"name": self._node.name, "labels": labels}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec}
        created = await api.create("/api/v1/nodes", node) or await api.get(self._path)
        return str(created["metadata"]["uid"])

    async def _renew(self, api: Api) -> None:
        await api.create(LEASES, lease(self._node.name))
        while True:
            renewed = {"spec": lease(self._node.name)["spec"]}
            await api.send("PATCH", f"{LEASES}/{self._node.name}", renewed, media=MERGE)
            await asyncio.sleep(LEASE_INTERVAL)

    async def _report(self, api: Api) -> None:
        """Report the Node's status: Ready once Cilium's agent runs on it."""
        key, value = CNI_LABEL
        query = {"fieldSelector": f"spec.nodeName={self._node.name}", "labelSelector": f"{key}={value}"}
        reported: bool | None = None
        while True:
            pods = await api.get(PODS, **query)
            has_cni = any(is_true(pod, "Ready") for pod in pods["items"])
            if has_cni is not reported:
                node = await api.get(self._path)
                status: Obj = node_status(self._node, (node.get("status") or {}).get("conditions") or [])
                up = ("True", "KubeletReady", "kubelet is posting ready status")
                ready = up if has_cni else ("False", "KubeletNotReady", NO_CNI)
                status["conditions"] = with_condition(status["conditions"], "Ready", *ready)
                if has_cni:
                    cilium = ("False", "CiliumIsUp", "Cilium is running on this node")
                    status["conditions"] = with_condition(status["conditions"], "NetworkUnavailable", *cilium)
                await api.send("PATCH", f"{self._path}/status", {"status": status}, media=MERGE)
                reported = has_cni
            await asyncio.sleep(LEASE_INTERVAL if reported else POLL_INTERVAL)

    async def _create_static_pods(self, api: Api, uid: str) -> None:
        """Create the mirror pods of the control plane's static pods."""
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._node.name, "uid": uid, "controller": True}
        for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
            pod = static_pod(component, self._node)
            pod["metadata"]["ownerReferences"] = [owner]
            try:
                await api.create(PODS, pod)
            except ApiError as error:
                _log.warning("static pod of %s: %s", self._node.name, error.message)


def _message(error: BaseException) -> str:
    """An error as a kubelet writes it: with Go's messages about certificates."""
    text = getattr(error, "message", "") or str(error)
    if "certificate verify failed" not in text:
        return text
    reason = next((message for python, message in _GO_MESSAGES.items() if python in text), text)
    return f"tls: failed to verify certificate: x509: {reason}"


async def _retried(work: Callable[[Api], Any], api: Api) -> None:
    """Repeat it until it ends without an error."""
    while True:
        try:
            await work(api)
        except _FAILED as error:
            _log.warning("%s: %s", getattr(work, "__name__", ""), error)
            await asyncio.sleep(RETRY)
        else:
            return
