"""Both engines behind one face: the same cluster of two nodes, once played and once real, and clients to it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fluobook_lab.clock import Clock
from fluobook_lab.engines.api import Api
from fluobook_lab.engines.control_plane import ControlPlane
from fluobook_lab.engines.kubelet import KubeletServer, RealKubelet
from fluobook_lab.faults import Faults
from fluobook_lab.grpc import reserve
from fluobook_lab.kube import system
from fluobook_lab.kube.cluster import KubeCluster
from fluobook_lab.kube.kubelet import NodeInfo
from fluobook_lab.kubernetes_side import server_context
from fluobook_lab.talos.config import MachineConfiguration, pair

from fluobook.clients import tools
from fluobook.machine import pki

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ADDRESS = "10.10.0.10"
BOUND = 180
"""Seconds that anything may take on a busy machine."""
NODES = (
    NodeInfo("cp-1", (ADDRESS,), role="controlplane", uuid="7d3a7f9e-0000-4000-8000-000000000001"),
    NodeInfo("worker-1", ("10.10.0.20",), uuid="7d3a7f9e-0000-4000-8000-000000000002"),
)
CILIUM = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "cilium", "namespace": "kube-system"},
    "spec": {
        "selector": {"matchLabels": {"k8s-app": "cilium"}},
        "template": {
            "metadata": {"labels": {"k8s-app": "cilium"}},
            "spec": {
                "hostNetwork": True,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "agent", "image": "lab.invalid/cilium:1"}],
            },
        },
    },
}


@dataclass
class Engine:
    """One of the two engines, and its administrator's clients."""

    name: str
    authority: pki.KeyPair
    place: tuple[str, int]
    folder: Path
    loop: asyncio.AbstractEventLoop
    apis: dict[str, Api] = field(default_factory=dict)

    def call(self, work: Any) -> Any:
        """Do something in the engine's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(BOUND)

    @property
    def api(self) -> Api:
        """The administrator's."""
        return self.of("admin", "system:masters")

    def of(self, user: str, *groups: str) -> Api:
        """A client of somebody with a certificate."""
        if user not in self.apis:
            identity = pki.issue(self.authority, common_name=user, organizations=groups, client=True)
            self.apis[user] = Api(f"https://{ADDRESS}:6443", self.authority.crt, identity=identity, address=self.place)
        return self.apis[user]

    def of_token(self, token: str) -> Api:
        """A client of a bearer of a token."""
        key = f"token {token}"
        if key not in self.apis:
            self.apis[key] = Api(f"https://{ADDRESS}:6443", self.authority.crt, token=token, address=self.place)
        return self.apis[key]

    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        path = self.folder / f"{self.name}.kubeconfig"
        if not path.exists():
            path.write_text(json.dumps(self._kubeconfig()))
        return path

    def _kubeconfig(self) -> dict[str, Any]:
        admin = pki.issue(
            self.authority, common_name="admin", organizations=["system:masters"], client=True
        ).to_base64()
        data = base64.b64encode(self.authority.crt.encode()).decode()
        server = f"https://127.0.0.1:{self.place[1]}"
        cluster = {"server": server, "certificate-authority-data": data, "tls-server-name": ADDRESS}
        user = {"client-certificate-data": admin["crt"], "client-key-data": admin["key"]}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "admin", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}],
            "current-context": "lab",
        }

    def run(self, tool: str, *args: str, stdin: str = "") -> tuple[int, str]:
        """Run kubectl, helm, or a program by its path; its exit code and both streams of what it wrote."""
        home = self.folder / f"home-{self.name}"
        home.mkdir(exist_ok=True)
        env = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig()),
            "HOME": str(home),
            "KUBECTL_EXTERNAL_DIFF": "diff -u",
        }
        env.pop("XDG_CONFIG_HOME", None)
        done = subprocess.run(
            [tool if "/" in tool else str(tools.find(tool).path), *args],
            input=stdin,
            env=env,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def until(self, question: Callable[[], Any]) -> Any:
        """Ask until the answer is true; that answer."""
        deadline = time.monotonic() + BOUND
        while not (answer := question()):
            assert time.monotonic() < deadline, f"{self.name}: it did not come about in time"
            time.sleep(0.1)
        return answer

    def settle(self) -> None:
        """Wait until both nodes are Ready and their kubelets serve with certificates."""
        self.call(self.api.apply(CILIUM, manager="conformance"))
        path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

        def pending() -> list[str]:
            requests = self.call(self.api.get(path))["items"]
            mine = [csr for csr in requests if csr["spec"]["signerName"] == "kubernetes.io/kubelet-serving"]
            return [csr["metadata"]["name"] for csr in mine] if len(mine) >= len(NODES) else []

        self.run("kubectl", "certificate", "approve", *self.until(pending))
        code, output = self.run("kubectl", "wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
        assert code == 0, output
        proxies = [f"/api/v1/nodes/{node.name}/proxy/healthz" for node in NODES]
        for proxy in proxies:
            self.call(self.api.wait_for(proxy))

    async def close(self) -> None:
        """Close every client."""
        for api in self.apis.values():
            await api.close()


class Embedded:
    """The engine that is played."""

    def __init__(self, configuration: MachineConfiguration) -> None:
        self._configuration, self.sock = configuration, reserve()
        self._cluster: KubeCluster | None = None

    async def start(self) -> None:
        """Start it, and let its nodes join."""
        cluster = self._cluster = KubeCluster(Clock(20), Faults(()), version="v1.35.4")
        authority = pair(self._configuration.cluster["ca"])
        cluster.start_controllers(authority, bootstrap_token=self._configuration.cluster["token"])
        await cluster.api.start(self.sock, server_context(ADDRESS, self._configuration))
        for node in NODES:
            cluster.join(node)

    async def stop(self) -> None:
        """End it."""
        if self._cluster:
            await self._cluster.stop()


class Real:
    """The engine of programs."""

    def __init__(self, configuration: MachineConfiguration, programs: Mapping[str, str], folder: Path) -> None:
        self._configuration, self._plane = configuration, ControlPlane(programs, folder)
        self._kubelets: list[RealKubelet] = []
        self.port = 0

    async def start(self) -> None:
        """Start it, and let its nodes join."""
        plane, configuration = self._plane, self._configuration
        await plane.start_etcd("cp-1", configuration, ADDRESS)
        server = await plane.start_server("cp-1", configuration, ADDRESS)
        await plane.start_controllers(server)
        self.port = server.port
        admin = plane.administrator(server)
        await admin.wait_for("/api/v1/namespaces/default/serviceaccounts/default")
        token = str(configuration.cluster["token"])
        for obj in system.of_talos(bootstrap_token=token, service_cidr="10.96.0.0/12"):
            await admin.apply(obj, manager=system.MANAGER)
        await admin.close()
        for node in NODES:
            self._join(node, token)

    def _join(self, node: NodeInfo, token: str) -> None:
        authority = pair(self._configuration.cluster["ca"]).crt
        connect = partial(Api, f"https://{ADDRESS}:6443", authority, address=("127.0.0.1", self.port))
        served = KubeletServer(authority, node.name)
        kubelet = RealKubelet(node, connect, token, server=served, ports=self._plane.egress.ports)
        self._kubelets.append(kubelet)
        kubelet.start(node)

    async def stop(self) -> None:
        """End it."""
        await asyncio.gather(*(kubelet.stop() for kubelet in self._kubelets))
        await self._plane.stop()
