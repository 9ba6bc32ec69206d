"""The world: every server of a lab, wired together, in one process on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import secrets
import ssl
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.machine import pki
from fluobook.params import KUBERNETES_PORT, TALOS_PORT
from fluobook_lab.argocd.controller import ArgoCD
from fluobook_lab.charts.pins import place, repositories
from fluobook_lab.charts.server import HERE, ChartServer
from fluobook_lab.clock import Clock
from fluobook_lab.critical import machine_configuration, virtual_machines
from fluobook_lab.engines.argocd import RealArgoCD
from fluobook_lab.engines.kubernetes import RealKubernetes
from fluobook_lab.factory import FactoryLab
from fluobook_lab.faults import Faults
from fluobook_lab.flows import ClusterFlows
from fluobook_lab.git_server import GitServer
from fluobook_lab.hubble import Relay
from fluobook_lab.kubernetes_side import KubernetesSide
from fluobook_lab.ports import FACTORY, HUBBLE, Ports, api_addresses, overlay
from fluobook_lab.proxmox import Host, ProxmoxLab, Storage, Token
from fluobook_lab.talos import TalosMachines

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fluobook.machine.pki import KeyPair
    from fluobook.params import Platform, ProxmoxEndpoint
    from fluobook_lab.argocd.repo_server import Programs

OWN_TREE = ("cluster-gitops", ".sops.yaml", "talos")
"""What of a working tree the lab's Git host serves."""

_log = logging.getLogger(__name__)


class World:
    """A lab: Proxmox VE, Image Factory, Talos, Kubernetes, Argo CD, Hubble, charts and Git.

    Args:
        platform: the platform it plays, as the params have it.
        root: the repository.
        folder: its state folder.
        programs: git, kubectl, helm and sops.
        speed: world seconds per real second.
        seed: what the dice start from.
        faults: names of faults.
        engines: the real engine's programs, by name; without them, Kubernetes and Argo CD are played here too.
    """

    def __init__(
        self,
        platform: Platform,
        *,
        root: Path,
        folder: Path,
        programs: Programs,
        speed: float,
        seed: int,
        faults: Sequence[str],
        engines: Mapping[str, str] | None = None,
    ) -> None:
        self.platform, self.root, self.folder = platform, root, folder
        self._engines = engines or {}
        self.clock, self.faults = Clock(speed), Faults(faults)
        self.random = random.Random(seed)
        self.ports = Ports.reserved(platform)
        self._programs = programs
        self._authority = pki.new_authority(organization="fluobook lab", common_name="fluobook lab CA")
        self._token = secrets.token_hex(16)
        self.kubernetes = self._real_kubernetes(engines, seed) if engines else self._kubernetes(seed)
        self.factory = FactoryLab(clock=self.clock, faults=self.faults, versions=(platform.versions.talos,))
        self.machines = self._machines()
        self.proxmox = {endpoint.name: self._proxmox(endpoint) for endpoint in platform.proxmox}
        self.charts = ChartServer(root / "cluster-gitops", self.clock)
        self.git = GitServer(folder / "git", self.clock, git=programs.git)
        self.argocd = self._argocd()
        self.relay = Relay(ClusterFlows(self.kubernetes.store), clock=self.clock, random=self.random)

    async def start(self) -> None:
        """Start every server and write what a platform needs to know to be rehearsed here."""
        self.folder.joinpath("site").mkdir(exist_ok=True, mode=0o700)
        self._write("ca.pem", self._authority.crt)
        self._write("token", self._token)
        await self.factory.start(self.ports.of(FACTORY), self._tls("factory.talos.dev"))
        for endpoint in self.platform.proxmox:
            sock = self.ports.of(f"{endpoint.host}:{endpoint.port}")
            await self.proxmox[endpoint.name].start(sock, self._tls(endpoint.host))
        await self.charts.start()
        await self.git.start()
        engine = "real" if self._engines else "embedded"
        changes = overlay(self.platform, self.ports, self.folder, root=self.root, mirrors=self._mirrors())
        self._write("lab.json", json.dumps({"pid": os.getpid(), "engine": engine, "overlay": changes}))

    async def stop(self) -> None:
        """Stop every server."""
        await self.argocd.stop()
        await self.relay.stop()
        await self.kubernetes.stop()
        await self.machines.stop()
        for server in (*self.proxmox.values(), self.factory, self.charts, self.git):
            await server.stop()

    def requests(self) -> list[dict[str, Any]]:
        """Every request that changed something, or could have, by server, in the order of the world's time."""
        logs = {
            **{f"proxmox {name}": server.requests for name, server in self.proxmox.items()},
            "kubernetes": self.kubernetes.requests,
            "factory": self.factory.requests,
        }
        told = [
            {
                "at": round(r.time, 2),
                "server": server,
                "method": r.method,
                "path": r.path,
                "status": r.status,
                "mutating": r.mutating,
                "agent": r.user_agent,
            }
            for server, log in logs.items()
            for r in log
        ]
        calls = [
            {
                "at": round(c.time, 2),
                "server": f"talos {c.node}",
                "method": "RPC",
                "path": c.path,
                "mutating": c.mutating,
            }
            for c in self.machines.calls
        ]
        return sorted(told + calls, key=lambda line: line["at"])

    def story(self) -> dict[str, Any]:
        """What happened so far: requests, how Argo CD's Applications came to be, and the critical path."""
        applications = [
            {"at": round(at, 2), "application": name, "state": state} for at, name, state in self.argocd.timeline
        ]
        tasks = [task for server in self.proxmox.values() for task in server.tasks.all.values()]
        paths = {
            "create-vms": virtual_machines(tasks, self.machines.delays),
            "apply-talos-config": machine_configuration(self.machines.delays),
        }
        return {
            "now": round(self.clock.now(), 2),
            "speed": self.clock.speed,
            "requests": self.requests(),
            "etcds": len(self.machines.etcds),
            "applications": applications,
            "critical_path": {name: [[s.name, round(s.seconds, 2)] for s in steps] for name, steps in paths.items()},
        }

    def _api(self) -> tuple[dict[str, socket.socket], str]:
        """The API's reserved sockets by address, and the address that the control planes share, or ""."""
        platform = self.platform
        sockets = {address: self.ports.of(f"{address}:{KUBERNETES_PORT}") for address in api_addresses(platform)}
        own = {node.address for node in platform.control_planes}
        return sockets, "" if platform.api_address in own else platform.api_address

    def _real_kubernetes(self, engines: Mapping[str, str], seed: int) -> RealKubernetes:
        return RealKubernetes(
            *self._api(),
            programs=engines,
            folder=self.folder / "engines",
            clock=self.clock,
            version=self.platform.versions.kubernetes,
            seed=seed,
            ready=self._cluster_is_up,
        )

    def _kubernetes(self, seed: int) -> KubernetesSide:
        platform = self.platform
        return KubernetesSide(
            *self._api(),
            clock=self.clock,
            faults=self.faults,
            version=platform.versions.kubernetes,
            seed=seed,
            ready=self._cluster_is_up,
            networks={"pod_cidr": platform.cluster.pod_cidr, "service_cidr": platform.cluster.service_cidr},
        )

    def _machines(self) -> TalosMachines:
        nodes = self.platform.nodes
        return TalosMachines(
            {node.address: self.ports.of(f"{node.address}:{TALOS_PORT}") for node in nodes},
            clock=self.clock,
            faults=self.faults,
            random=self.random,
            cluster=self.kubernetes,
            leases={node.mac.upper(): node.address for node in nodes},
            stopped=self._stopped,
            extensions=self._extensions,
        )

    def _extensions(self, schematic: str) -> list[tuple[str, str]]:
        """What a schematic that the factory was told brings, by short name, with a version."""
        told = yaml.safe_load(self.factory.schematics.get(schematic, "{}")) or {}
        wanted = ((told.get("customization") or {}).get("systemExtensions") or {}).get("officialExtensions") or []
        return [(name.rpartition("/")[2], f"v{self.platform.versions.talos}") for name in wanted]

    def _stopped(self, uuid: str) -> None:
        for lab in self.proxmox.values():
            lab.guest_stopped(uuid)

    def _proxmox(self, endpoint: ProxmoxEndpoint) -> ProxmoxLab:
        platform = self.platform
        return ProxmoxLab(
            [Host(name, bridges=(platform.network.bridge,), memory_gib=512) for name in endpoint.hosts],
            _storages(endpoint),
            [Token(endpoint.token_id, self._token)],
            clock=self.clock,
            faults=self.faults,
            machines=self.machines,
            images=self.factory.image,
            random=self.random,
            planned=[(n.vmid, n.name, n.host) for n in platform.nodes if n.host in endpoint.hosts],
        )

    def _argocd(self) -> ArgoCD | RealArgoCD:
        if isinstance(self.kubernetes, RealKubernetes):
            folder = self.folder / "argocd"
            return RealArgoCD(self.kubernetes, folder=folder, programs=self._programs, engines=self._engines)
        return ArgoCD(
            self.kubernetes.store,
            self.clock,
            programs=self._programs,
            folder=self.folder / "argocd",
            kube_version=self.platform.versions.kubernetes,
            random=self.random,
            faults=self.faults,
        )

    def _cluster_is_up(self) -> None:
        self._later = asyncio.gather(self.argocd.start(), self.relay.start(self.ports.of(HUBBLE)))

    def _mirrors(self) -> dict[str, str]:
        """Charts, our own repository, and stand-ins for the repositories of others."""
        ours = place(self.platform.gitops.repository)
        self.git.seed(ours, self.root, OWN_TREE)
        mirrors = {**self.charts.mirrors(), self.platform.gitops.repository: self.git.url(ours)}
        for pin in repositories(self.root / "cluster-gitops"):
            standin = HERE / "standins-git" / pin.place
            if standin.is_dir():
                self.git.seed(pin.place, standin, tags=[pin.version])
                mirrors[pin.repository] = self.git.url(pin.place)
        return mirrors

    def _tls(self, host: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        is_ip = host.replace(".", "").isdigit()
        issued: KeyPair = pki.issue(
            self._authority, common_name=host, dns=() if is_ip else (host,), ips=(host,) if is_ip else (), server=True
        )
        pki.load_identity(context, issued)
        return context

    def _write(self, name: str, text: str) -> None:
        partial = self.folder / f".{name}"
        partial.touch(mode=0o600)
        partial.write_text(text)
        partial.replace(self.folder / name)


def _storages(endpoint: ProxmoxEndpoint) -> list[Storage]:
    if endpoint.image_storage == endpoint.disk_storage:
        return [Storage(endpoint.image_storage, size_gib=20000)]
    return [
        Storage(endpoint.image_storage, content=("iso", "import", "snippets"), size_gib=100),
        Storage(endpoint.disk_storage, content=("images",), type="lvmthin", size_gib=20000),
    ]
