"""A whole cluster: the API server, the controllers once there is a CA, and the kubelets that joined."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING

from fluobook_lab.kube import system
from fluobook_lab.kube.access import Write
from fluobook_lab.kube.api import VERSION, KubeApi
from fluobook_lab.kube.controllers import loop
from fluobook_lab.kube.controllers.backups import Backups
from fluobook_lab.kube.controllers.certificates import CertificateSigner, CsrApprover
from fluobook_lab.kube.controllers.created import Created
from fluobook_lab.kube.controllers.garbage import ROOT_CA, GarbageCollector, Namespaces
from fluobook_lab.kube.controllers.gateways import Gateways
from fluobook_lab.kube.controllers.issuing import Issuing
from fluobook_lab.kube.controllers.longhorn import Longhorn
from fluobook_lab.kube.controllers.nodes import Evictions, Heartbeats, Nodes
from fluobook_lab.kube.controllers.operators import Operators
from fluobook_lab.kube.controllers.pods import Kubelets
from fluobook_lab.kube.controllers.services import Endpoints, Ingresses, LoadBalancers
from fluobook_lab.kube.controllers.volumes import EphemeralVolumes, Volumes
from fluobook_lab.kube.controllers.workloads import CronJobs, DaemonSets, Deployments, Jobs, ReplicaSets, StatefulSets
from fluobook_lab.kube.kubelet import Kubelet, NodeInfo, serving_request
from fluobook_lab.kube.metrics import ApiServices
from fluobook_lab.kube.objects import name_of, namespace_of
from fluobook_lab.kube.store import SERVICE_CIDR

if TYPE_CHECKING:
    from fluobook.machine.pki import KeyPair
    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.controllers.loop import Controller
    from fluobook_lab.kube.objects import Obj

INTRUDER = NodeInfo("intruder", ("192.0.2.66",))
"""A machine that is not declared, for the fault "kube.foreign-csr"."""
POD_CIDR = "10.244.0.0/16"


class KubeCluster:
    """One Kubernetes cluster of the lab.

    Args:
        clock: the lab's clock.
        faults: what goes wrong on purpose.
        version: gitVersion of the API server.
        seed: makes names and delays the same in every run.
        pod_cidr: cut into a /24 for each node.
        service_cidr: where cluster IPs come from.

    Attributes:
        longhorn: its volumes.
        api: the API server; `api.store` is the in-process handle, `api.start(sock, ssl_context)` a listener.
    """

    def __init__(
        self,
        clock: Clock,
        faults: Faults,
        *,
        version: str = VERSION,
        seed: int = 0,
        pod_cidr: str = POD_CIDR,
        service_cidr: str = SERVICE_CIDR,
    ) -> None:
        self.api = KubeApi(clock, faults, version=version, seed=seed, service_cidr=service_cidr)
        self._clock = clock
        self._faults = faults
        self._seed = seed
        self._service_cidr = service_cidr
        self._pod_cidrs = ipaddress.ip_network(pod_cidr).subnets(new_prefix=24)
        self._heartbeats = Heartbeats(self.api.store.storage, clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._kubelets: dict[str, Kubelet] = {}
        self._machines: dict[str, NodeInfo] = {}
        self.longhorn = Longhorn(self.api.store, clock, faults, self._machines)
        self._pod_networks: dict[str, str] = {}
        self._bootstrap_user = "system:bootstrap:talos"

    def start_controllers(self, authority: KeyPair, *, bootstrap_token: str = "") -> None:
        """Bring the control plane to life: system objects and all controllers; a second call does nothing.

        Args:
            authority: the cluster's CA, out of the machine config (`cluster.ca`).
            bootstrap_token: `cluster.token` of the machine config.
        """
        if self._tasks:
            return
        store = self.api.store
        system.install(store, bootstrap_token=bootstrap_token, service_cidr=self._service_cidr)
        if bootstrap_token:
            self._bootstrap_user = f"system:bootstrap:{bootstrap_token.partition('.')[0]}"
        for controller in self._controllers(authority):
            self._tasks.append(asyncio.create_task(loop.run(store, self._clock, controller)))
        self._tasks.append(asyncio.create_task(GarbageCollector(store).run()))
        if self._faults.on("kube.foreign-csr"):
            store.create(serving_request(INTRUDER), Write(user=INTRUDER.user))

    def take_over(self, authority: KeyPair, accepted: tuple[str, ...]) -> None:
        """The control plane has other authorities: it signs with `authority`, and publishes all that are accepted."""
        store, roots = self.api.store, "".join(f"{crt.rstrip()}\n" for crt in accepted)
        self._signer.authority, self._namespaces.ca, store.authorities = authority, roots, accepted
        for each in store.view("v1", "ConfigMap"):
            if name_of(each) == ROOT_CA:
                body = {"data": {"ca.crt": roots}}
                store.patch("v1", "ConfigMap", ROOT_CA, namespace_of(each), body=body, write=Write())

    def refuse_others(self, accepted: set[str]) -> None:
        """No API server accepts other authorities any more: kubelets with their certificates are not let in."""
        for kubelet in self._kubelets.values():
            if not kubelet.is_certified_by(accepted):
                kubelet.stop()

    def trust(self, node: NodeInfo, accepted: tuple[str, ...]) -> Kubelet | None:
        """A machine's kubelet has other authorities: with a certificate of none of them it begins anew: the new one."""
        kubelet = self._kubelets.get(node.name)
        return None if kubelet is None or kubelet.is_certified_by(accepted) else self.join(node, wiped=True)

    def _controllers(self, authority: KeyPair) -> list[Controller]:
        store = self.api.store
        self._signer, self._namespaces = CertificateSigner(store, authority), Namespaces(store, authority.crt)
        return [
            self._signer,
            self._namespaces,
            Nodes(store, self._heartbeats, self._faults),
            Evictions(store, self._clock, self._works),
            Kubelets(store, self._clock, self._faults, self._seed, self._machines),
            Deployments(store),
            ReplicaSets(store),
            DaemonSets(store),
            StatefulSets(store),
            Jobs(store, self._clock),
            CronJobs(store),
            Volumes(store, self._clock, self._seed),
            EphemeralVolumes(store),
            self.longhorn,
            Endpoints(store),
            ApiServices(store),
            LoadBalancers(store),
            Ingresses(store),
            Gateways(store),
            CsrApprover(store),
            Created(store),
            Operators(store, self._clock, self._seed),
            Backups(store, self._faults),
            Issuing(store, self._clock, self._seed, self._faults),
        ]

    def _works(self) -> bool:
        return self.api.has_quorum()

    def restart(self, objs: list[Obj], revision: int, *, bootstrap_token: str = "") -> None:
        """Go on with what a restored etcd has; with nothing, as a new cluster that has what every cluster has."""
        self.api.store.restore(objs, revision)
        if not objs:
            system.install(self.api.store, bootstrap_token=bootstrap_token, service_cidr=self._service_cidr)

    def join(self, node: NodeInfo, *, wiped: bool = False) -> Kubelet:
        """A machine's kubelet starts: CSRs, Node, lease. `stop()` it at power-off.

        Args:
            node: the machine; one that was here before, by name and uuid, has its certificates still.
            wiped: its disk was emptied since: it asks for new ones.
        """
        old = self._kubelets.pop(node.name, None)
        if old is not None:
            old.stop()
        if node.name not in self._pod_networks:
            self._pod_networks[node.name] = str(next(self._pod_cidrs))
        kubelet = Kubelet(
            self.api.store,
            self._clock,
            node,
            self._heartbeats,
            bootstrap_user=self._bootstrap_user,
            pod_cidr=self._pod_networks[node.name],
            certified=old.certificate if old is not None and old.has_certificates_of(node) and not wiped else "",
        )
        self._kubelets[node.name], self._machines[node.name] = kubelet, node
        kubelet.start()
        return kubelet

    async def stop(self) -> None:
        """End kubelets, controllers and listeners."""
        for kubelet in self._kubelets.values():
            kubelet.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.api.stop()
