"""The simulated environment: all servers of a lab in one process, their ports, and a record of what happened."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import secrets
import ssl
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from fluobook.machine import pki
from fluobook.params import KUBERNETES_PORT, TALOS_PORT, overlay
from fluobook.params.fields import authority
from fluobook.params.versions import minor_of, ordered
from fluobook_lab import factory
from fluobook_lab.charts import GIT_STANDINS, ChartServer, repository_path
from fluobook_lab.charts.sources import MANIFESTS, STANDINS, Folder, resolve
from fluobook_lab.clock import Clock
from fluobook_lab.faults import Faults
from fluobook_lab.git_server import GitServer
from fluobook_lab.grpc import reserve
from fluobook_lab.hosts import Hosts
from fluobook_lab.http import issue_for
from fluobook_lab.hubble import ClusterFlows, Relay
from fluobook_lab.kube.controllers.nodes import HEARTBEATS
from fluobook_lab.kube.objects import is_true, name_of
from fluobook_lab.proxmox import Host, ProxmoxLab, Storage, Token
from fluobook_lab.proxmox.model import administrator
from fluobook_lab.s3 import BucketServer
from fluobook_lab.talos import TalosMachines
from fluobook_lab.talos.node import parse_image

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping, Sequence

    from fluobook.params import Platform, ProxmoxEndpoint
    from fluobook_lab.argocd.controller import ArgoCD
    from fluobook_lab.argocd.repo_server import Programs
    from fluobook_lab.engines.argocd import RealArgoCD
    from fluobook_lab.engines.kubernetes import RealKubernetes
    from fluobook_lab.http import HttpServer
    from fluobook_lab.kubernetes_side import KubernetesSide
    from fluobook_lab.proxmox.model import Task
    from fluobook_lab.talos import Delays

SERVED_TREE = (*MANIFESTS, ".sops.yaml", "talos")
"""The parts of the working tree that the lab's Git server serves."""
FACTORY = f"{factory.HOST}:443"
HUBBLE = "hubble-relay.kube-system:80"


def reserve_ports(platform: Platform) -> dict[str, socket.socket]:
    """A reserved loopback socket for each real `host:port` that the stages connect to."""
    names = [endpoint.authority for endpoint in platform.proxmox]
    names += [FACTORY, HUBBLE]
    names += [authority(*bucket.server)] if (bucket := platform.etcd_snapshots.bucket) else []
    names += [f"{node.address}:{TALOS_PORT}" for node in platform.nodes]
    names += [f"{address}:{KUBERNETES_PORT}" for address in _api_addresses(platform)]
    return {name: reserve() for name in dict.fromkeys(names)}


def _api_addresses(platform: Platform) -> list[str]:
    """The addresses of the Kubernetes API: the shared one, and every control plane."""
    return list(dict.fromkeys([platform.api_address, *(node.address for node in platform.control_planes)]))


KUBERNETES_IMAGE = re.compile(r"/(kube-[a-z-]+|kubelet):v(?P<version>\d+\.\d+\.\d+)")
"""The name of an image of Kubernetes. Only the embedded engine changes its version: the real one is built in one."""


class Environment:
    """A lab: Proxmox VE, Image Factory, Talos, Kubernetes, Argo CD, Hubble, charts and Git.

    Args:
        platform: the platform from the params.
        root: the repository.
        folder: the lab's state folder.
        programs: git, kubectl, helm and sops.
        speed: the time scale: simulated seconds per real second.
        seed: the random seed.
        faults: names of the faults to inject.
        engines: the real engine's programs, by name; without them, Kubernetes and Argo CD are embedded.
        charts: what is used as charts, as `--charts` names it.
        real: the folder of the real charts; None for stand-ins.
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
        charts: str = STANDINS,
        real: Folder | None = None,
    ) -> None:
        self._engines, self._programs = engines or {}, programs
        self.root, self.folder = root, folder
        self.platform = platform = self._as_built(platform)
        self.clock, self.faults = Clock(speed), Faults(faults)
        self.random = random.Random(seed)
        self.ports = reserve_ports(platform)
        self._identities: dict[HttpServer, tuple[str, ssl.SSLContext]] = {}
        self._reporting: asyncio.Task[None] | None = None
        self._authority = pki.new_authority(organization="fluobook lab", common_name="fluobook lab CA")
        self._token = secrets.token_hex(16)
        self.kubernetes = self._kubernetes(seed)
        major, minor, patch = ordered(platform.versions.talos)
        newer = f"v{major}.{minor}.{patch + 1}"  # to which an upgrade can be rehearsed, whatever the params name
        talos = sorted({f"v{platform.versions.talos}", newer, *factory.VERSIONS}, key=ordered)
        self.factory = factory.FactoryLab(clock=self.clock, faults=self.faults, versions=talos)
        self.machines = TalosMachines(
            {node.address: self.ports[f"{node.address}:{TALOS_PORT}"] for node in platform.nodes},
            clock=self.clock,
            faults=self.faults,
            random=self.random,
            cluster=self.kubernetes,
            leases={node.mac.upper(): node.address for node in platform.nodes},
            stopped=self._guest_stopped,
            extensions=self._extensions,
            has_image=self._has_image,
            referee=self._engines.get("talos-referee", ""),
        )
        self.hosts = Hosts(platform, folder / "hosts", self.clock, self.faults)
        self.proxmox = {endpoint.name: self._proxmox(endpoint) for endpoint in platform.proxmox}
        self._mode = charts
        self._sources = resolve(root, platform.gitops.repository, real)
        trees = [root / name for name in MANIFESTS]
        self.charts = ChartServer(*trees, clock=self.clock, real=real.package if real else lambda _: None)
        self.git = GitServer(folder / "git", self.clock, git=programs.git)
        self.bucket = self._bucket()
        self.argocd = self._argocd()
        self.relay = Relay(ClusterFlows(self.kubernetes.store), clock=self.clock, random=self.random)

    def _as_built(self, platform: Platform) -> Platform:
        """The platform with the patch of Kubernetes that the real engine's programs have."""
        if not self._engines:
            return platform
        from fluobook_lab.engines.programs import version_text  # noqa: PLC0415  the embedded engine does without

        built = version_text(self._engines["kube-apiserver"], ("--version",)).strip().rpartition(" v")[2]
        has_minor = minor_of(built) == minor_of(platform.versions.kubernetes)
        return overlay(platform, {"versions": {"kubernetes": built}}) if has_minor else platform

    async def start(self) -> None:
        """Start the servers, and write the overlay for the params to lab.json."""
        self.folder.joinpath("site").mkdir(exist_ok=True, mode=0o700)
        self._write("ca.pem", self._authority.crt)
        self._write("token", self._token)
        await self.factory.start(self.ports[FACTORY], self._tls(self.factory, factory.HOST))
        for endpoint in self.platform.proxmox:
            server = self.proxmox[endpoint.name]
            await server.start(self.ports[endpoint.authority], self._tls(server, endpoint.host))
        if self.bucket and (wanted := self.platform.etcd_snapshots.bucket):
            tls = self._tls(self.bucket, wanted.server[0]) if wanted.url.startswith("https:") else None
            await self.bucket.start(self.ports[authority(*wanted.server)], tls)
        await self.charts.start()
        await self.git.start()
        overlay = self._overlay()
        await self._inject()
        engine = "real" if self._engines else "embedded"
        state = {"pid": os.getpid(), "engine": engine, "speed": self.clock.speed, "overlay": overlay}
        state["charts"] = self._mode
        self._write("lab.json", json.dumps({**state, "sources": [asdict(source) for source in self._sources]}))

    async def change_faults(self, names: Sequence[str]) -> None:
        """Inject these faults and no others from now on."""
        self.faults.replace(names)
        await self._inject()

    async def _inject(self) -> None:
        """Let servers have the certificates and states that the faults give them."""
        for name, server in self._servers:
            server.inject = partial(self.faults.answer, name)
            whole = self.faults.answer(name)
            await server.set_down(down=whole is not None and whole.down)
            if server in self._identities:
                self._certify(*self._identities[server], **(whole.certificate if whole else {}))
        for server in self.proxmox.values():
            server.refresh_faults()
        self.hosts.refresh_faults()
        for node in self.kubernetes.store.view("v1", "Node"):
            self.kubernetes.store.storage.signal(HEARTBEATS, name_of(node))

    @property
    def _servers(self) -> list[tuple[str, HttpServer]]:
        servers: list[tuple[str, HttpServer]] = [("proxmox", server) for server in self.proxmox.values()]
        servers += [("s3", self.bucket)] if self.bucket else []
        return [*servers, ("factory", self.factory), ("charts", self.charts), ("git", self.git)]

    async def stop(self) -> None:
        """Stop the servers."""
        if self._reporting:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)
        await self.argocd.stop()
        await self.relay.stop()
        await self.kubernetes.stop()
        await self.machines.stop()
        for _, server in self._servers:
            await server.stop()

    def requests(self) -> list[dict[str, Any]]:
        """The requests to all servers except charts and Git, in the order of simulated time."""
        logs = {
            **{f"proxmox {name}": server.requests for name, server in self.proxmox.items()},
            "kubernetes": self.kubernetes.requests,
            "factory": self.factory.requests,
            **({"s3": self.bucket.requests} if self.bucket else {}),
        }
        http = [
            {"at": round(request.time, 2), "server": server, "agent": request.user_agent}
            | {name: getattr(request, name) for name in ("method", "path", "status", "mutating")}
            for server, log in logs.items()
            for request in log
        ]
        calls = [
            {"at": round(call.time, 2), "server": f"talos {call.node}", "method": "RPC"}
            | {"path": call.path, "mutating": call.mutating}
            for call in self.machines.calls
        ]
        return sorted(http + calls + self.hosts.requests(), key=lambda request: request["at"])

    def activity(self) -> dict[str, Any]:
        """What happened so far: requests, what was away, Applications' states, and the critical path of stages."""
        applications = [
            {"at": round(at, 2), "application": name, "state": state} for at, name, state in self.argocd.timeline
        ]
        tasks = [task for server in self.proxmox.values() for task in server.tasks.all.values()]
        delays = self.machines.delays
        return {
            "now": round(self.clock.now(), 2),
            "speed": self.clock.speed,
            "requests": self.requests(),
            "etcds": len(self.machines.etcds),
            "nodes": [{**moment._asdict(), "time": round(moment.time, 2)} for moment in self.machines.moments],
            "volumes": [
                {"time": round(time, 2), "volume": name, "healthy": healthy, "wanted": wanted}
                for time, name, healthy, wanted in self.kubernetes.volumes
            ],
            "applications": applications,
            "critical_path": {
                "create-vms": critical_path(tasks, delays),
                "apply-talos-config": [
                    ["leave maintenance", delays.leave],
                    ["install Talos", delays.install],
                    ["restart from disk", delays.reboot],
                ],
            },
        }

    def _overlay(self) -> dict[str, Any]:
        """What replaces parts of the params in a rehearsal: endpoints, trust, mirrors, and the lab's own keys."""
        trusted = [FACTORY, *(endpoint.authority for endpoint in self.platform.proxmox)]
        trusted += [authority(*bucket.server)] if (bucket := self.platform.etcd_snapshots.bucket) else []
        token = {"file": str(self.folder / "token")}
        built = {"versions": {"kubernetes": self.platform.versions.kubernetes}} if self._engines else {}
        return {
            **self.hosts.overlay(),
            **built,
            "endpoints": {name: f"127.0.0.1:{sock.getsockname()[1]}" for name, sock in self.ports.items()},
            "trust": dict.fromkeys(trusted, str(self.folder / "ca.pem")),
            "gitops": {"mirrors": self._mirrors(), "revision": "main"},
            "proxmox": [{"name": endpoint.name, "token_secret": token} for endpoint in self.platform.proxmox],
            "etcd_snapshots": self._snapshots(token),
            "secrets": {
                "age_key": {"file": str(self.root / "params" / "lab" / "lab.age")},
                "bundle": str(self.folder / "cluster" / "secrets.sops.yaml"),
            },
        }

    def _snapshots(self, token: dict[str, str]) -> dict[str, Any]:
        """Where snapshots of etcd are: in the lab's folder, or in its bucket, whose two keys are the lab's token."""
        if self.platform.etcd_snapshots.bucket:
            return {"bucket": {"access_key_id": token, "secret_access_key": token, "session_token": None}}
        return {"folder": str(self.folder / "cluster" / "etcd-snapshots")}

    def _bucket(self) -> BucketServer | None:
        wanted = self.platform.etcd_snapshots.bucket
        keys = {self._token: self._token}
        return BucketServer(wanted.name, self.clock, region=wanted.region, keys=keys) if wanted else None

    def _kubernetes(self, seed: int) -> KubernetesSide | RealKubernetes:
        platform = self.platform
        sockets = {address: self.ports[f"{address}:{KUBERNETES_PORT}"] for address in _api_addresses(platform)}
        nodes = {node.address for node in platform.control_planes}
        shared = "" if platform.api_address in nodes else platform.api_address
        version, ready = platform.versions.kubernetes, self._cluster_is_up
        if self._engines:
            from fluobook_lab.engines.kubernetes import RealKubernetes  # noqa: PLC0415  only one engine is loaded

            return RealKubernetes(
                sockets,
                shared,
                programs=self._engines,
                folder=self.folder / "engines",
                clock=self.clock,
                version=version,
                seed=seed,
                faults=self.faults,
                ready=ready,
            )
        from fluobook_lab.kubernetes_side import KubernetesSide  # noqa: PLC0415

        return KubernetesSide(
            sockets,
            shared,
            clock=self.clock,
            faults=self.faults,
            version=version,
            seed=seed,
            ready=ready,
            networks={"pod_cidr": platform.cluster.pod_cidr, "service_cidr": platform.cluster.service_cidr},
        )

    def _extensions(self, schematic: str) -> list[tuple[str, str]]:
        """The extensions of a registered schematic: short name and version."""
        document = yaml.safe_load(self.factory.schematics.get(schematic, "{}")) or {}
        names = ((document.get("customization") or {}).get("systemExtensions") or {}).get("officialExtensions") or []
        return [(name.rpartition("/")[2], f"v{self.platform.versions.talos}") for name in names]

    def _has_image(self, name: str) -> bool:
        """Whether a node can fetch it: an image of Kubernetes, or an installer that the Image Factory builds."""
        if parts := KUBERNETES_IMAGE.search(name):
            runs = parts["version"] == self.platform.versions.kubernetes
            return runs or not (self._engines or self.faults.on("talos.kubernetes-image-missing"))
        image = parse_image(name)
        return image.schematic in self.factory.schematics and image.version in self.factory.versions

    def _guest_stopped(self, uuid: str) -> None:
        for server in self.proxmox.values():
            server.guest_stopped(uuid)

    def _proxmox(self, endpoint: ProxmoxEndpoint) -> ProxmoxLab:
        platform = self.platform
        if endpoint.image_storage == endpoint.disk_storage:
            storages = [Storage(endpoint.image_storage, size_gib=20000)]
        else:
            storages = [
                Storage(endpoint.image_storage, content=("iso", "import", "snippets"), size_gib=100),
                Storage(endpoint.disk_storage, content=("images",), type="lvmthin", size_gib=20000),
            ]
        has_vnet = platform.wireguard and platform.wireguard.vxlan
        bridge = "vmbr0" if has_vnet else platform.network.bridge
        return ProxmoxLab(
            [Host(name, bridges=(bridge,), cores=128, memory_gib=512) for name in endpoint.hosts],
            storages,
            [Token(endpoint.token_id, self._token, administrator(8 if self.faults.on("proxmox.version-8") else 9))],
            clock=self.clock,
            faults=self.faults,
            machines=self.machines,
            images=self.factory.image,
            random=self.random,
            planned=[(n.vmid, n.name, n.host) for n in platform.nodes if n.host in endpoint.hosts],
            pools=[platform.vm.pool] if platform.vm.pool else [],
            cpu_models=[platform.vm.cpu] if platform.vm.cpu.startswith("custom-") else [],
            tunnels=self.hosts.reload,
            handshakes=self.hosts.handshakes,
        )

    def _argocd(self) -> ArgoCD | RealArgoCD:
        folder = self.folder / "argocd"
        if self._engines:
            from fluobook_lab.engines.argocd import RESYNC, SLOW_RESYNC, RealArgoCD  # noqa: PLC0415

            kubernetes = cast("RealKubernetes", self.kubernetes)
            resync = RESYNC if self._mode == STANDINS else SLOW_RESYNC
            return RealArgoCD(kubernetes, folder=folder, programs=self._programs, engines=self._engines, resync=resync)
        from fluobook_lab.argocd.controller import ArgoCD  # noqa: PLC0415

        return ArgoCD(
            self.kubernetes.store,
            self.clock,
            programs=self._programs,
            folder=folder,
            kube_version=self.platform.versions.kubernetes,
            random=self.random,
            faults=self.faults,
        )

    def _cluster_is_up(self) -> None:
        self._starting = asyncio.gather(self.argocd.start(), self.relay.start(self.ports[HUBBLE]))
        self._reporting = asyncio.create_task(self._report_nodes(), name="node status")

    async def _report_nodes(self) -> None:
        """Let each Talos node know whether Kubernetes reports it as ready."""
        watch = self.kubernetes.store.watch("v1", "Node")

        def report(obj: dict[str, Any], *, ready: bool) -> None:
            for node in self.machines.nodes.values():
                if node.hostname == obj["metadata"]["name"]:
                    node.set_node_ready(ready=ready)

        try:
            for obj in self.kubernetes.store.view("v1", "Node"):
                report(obj, ready=is_true(obj, "Ready"))
            async for event in watch:
                report(event.object, ready=event.type != "DELETED" and is_true(event.object, "Ready"))
        finally:
            watch.close()

    def _mirrors(self) -> dict[str, str]:
        """Mirrors of the chart repositories, of our own repository, and of others that are real or have stand-ins."""
        own = repository_path(self.platform.gitops.repository)
        self.git.seed(own, self.root, SERVED_TREE)
        mirrors = {**self.charts.mirrors(), self.platform.gitops.repository: self.git.url(own)}
        for source in self._sources:
            if source.chart or source.used == "remote":
                continue
            path = repository_path(source.repository)
            if source.used == "real":
                self.git.copy(path, Path(source.origin), source.version, source.digest)
            else:
                self.git.seed(path, GIT_STANDINS / path, tags=[source.version])
            mirrors[source.repository] = self.git.url(path)
        return mirrors

    def _tls(self, server: HttpServer, host: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._certify(host, context)
        self._identities[server] = host, context
        return context

    def _certify(
        self, name: str, context: ssl.SSLContext, *, host: str = "", untrusted: bool = False, **options: Any
    ) -> None:
        """Give a server a certificate for its name or another host; `options` are those of `pki.issue`."""
        signed_by = (
            pki.new_authority(organization="another", common_name="another CA") if untrusted else self._authority
        )
        pki.load_identity(context, issue_for(signed_by, [host or name], common_name=host or name, **options))

    def _write(self, name: str, text: str) -> None:
        partial = self.folder / f".{name}"
        partial.touch(mode=0o600)
        partial.write_text(text)
        partial.replace(self.folder / name)


def critical_path(tasks: Iterable[Task], delays: Delays) -> list[tuple[str, float]]:
    """The longest chain from the image download to a booted VM, without waiting and polling; empty without a new VM.

    Args:
        tasks: all tasks of all Proxmox VE endpoints.
        delays: how long booting takes.
    """

    def step(name: str, task: Task) -> tuple[str, float]:
        return name, round(task.ended - task.began, 2)

    finished = [task for task in tasks if task.exit]
    downloads = [step(f"download on {task.node}", task) for task in finished if task.type == "download"]
    download = sorted(downloads, key=lambda item: item[1])[-1:]
    starts = {task.id: task for task in reversed(finished) if task.type == "qmstart" and task.exit == "OK"}
    chains = [
        [*download, step(f"create VM {task.id}", task), step(f"start VM {task.id}", starts[task.id])]
        for task in finished
        if task.type == "qmcreate" and task.id in starts
    ]
    longest = max(chains, key=lambda chain: sum(seconds for _, seconds in chain), default=[])
    return [*longest, ("boot Talos", delays.boot)] if longest else []
