"""The control plane's processes: one etcd, an API server for each control plane node, and the controllers once."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from fluobook.errors import FluobookError
from fluobook.machine.pki import KeyPair
from fluobook_lab.engines import arguments
from fluobook_lab.engines.api import Api
from fluobook_lab.engines.identities import MASTERS, Files, write_identities, write_kubeconfig
from fluobook_lab.engines.network import EgressProxy
from fluobook_lab.engines.processes import Processes, Running, free_port, last_error

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from pathlib import Path

    from fluobook_lab.talos import MachineConfiguration

DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
"""The controllers create it when they are ready, and no pod is accepted without it."""


@dataclass
class Server:
    """One node's API server.

    Args:
        files: what it reads.
        config: its node's configuration.
        address: the node's.
        port: where it listens on loopback.
        running: its process, once started.
        controllers: the controllers beside it, on the first control plane.
    """

    files: Files
    config: MachineConfiguration
    address: str
    port: int
    running: Running | None = None
    controllers: dict[str, Running] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"


class ControlPlane:
    """Starts and ends the programs.

    Args:
        programs: their paths, by name.
        folder: for all their files.
    """

    def __init__(self, programs: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.processes = Processes(folder)
        self.egress = EgressProxy()
        self._programs, self._folder = programs, folder
        self._etcd = {name: f"https://127.0.0.1:{free_port()}" for name in ("client", "peer")}
        self._servers: dict[str, Server] = {}
        self._store: Server | None = None
        self._running_etcd: Running | None = None

    async def start_etcd(self, name: str, config: MachineConfiguration, address: str) -> None:
        """Start etcd with the identity from the first control plane's configuration.

        Raises:
            FluobookError: the configuration lacks an authority or key.
        """
        server = self._store = self._server(name, config, address)
        self._running_etcd = await self._start("etcd", arguments.etcd(server.files, **self._etcd))

    async def restart_etcd(self, name: str, config: MachineConfiguration, address: str, database: bytes) -> None:
        """End etcd, and start it again on the database of a snapshot, or on nothing.

        Raises:
            FluobookError: the configuration lacks an authority or key.
        """
        if self._running_etcd:
            await self.processes.end(self._running_etcd)
        data = self._server(name, config, address).files.folder / "etcd"
        await asyncio.to_thread(_written, data, database)
        await self.start_etcd(name, config, address)

    async def snapshot(self) -> bytes:
        """A snapshot from etcd itself: its database, and the SHA-256 of it.

        Raises:
            OSError: etcd does not answer.
            aiohttp.ClientError: it refuses.
        """
        if self._store is None:
            raise ConnectionRefusedError("etcd does not run")
        folder = self._store.files.folder
        context = ssl.create_default_context(cafile=str(folder / "etcd-ca.crt"))
        context.load_cert_chain(folder / "etcd-client.crt", folder / "etcd-client.key")
        url, parts = f"{self._etcd['client']}/v3/maintenance/snapshot", []
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), read_bufsize=1 << 20) as session,
            session.post(url, data="{}", raise_for_status=True) as response,
        ):
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                parts += [json.loads(line)["result"].get("blob", "") for line in lines if line]
        return b"".join(map(base64.b64decode, parts))

    async def start_server(self, name: str, config: MachineConfiguration, address: str) -> Server:
        """Start a node's API server, and wait until it is ready.

        Raises:
            FluobookError: the configuration lacks an authority or key, or the API server ended because of it.
        """
        server = self._server(name, config, address)
        await self.egress.start()
        flags = arguments.api_server(server.files, config, address, port=server.port, etcd=self._etcd["client"])
        server.running = await self._start("kube-apiserver", flags, log=f"kube-apiserver-{name}")
        await self._ready(server, "/readyz", {"kube-apiserver": server.running})
        return server

    async def end_server(self, name: str) -> None:
        """End a node's API server."""
        server = self._servers.get(name)
        if server and server.running:
            await self.processes.end(server.running)

    async def start_controllers(self, server: Server) -> None:
        """Start the controllers, the scheduler, and KWOK for pods, unless they run; wait until they are ready.

        Raises:
            FluobookError: one of them ended because of its configuration.
        """
        for program, flags in arguments.controllers(server.files, server.config, server.address).items():
            if program not in server.controllers or server.controllers[program].process.returncode is not None:
                server.controllers[program] = await self._start(program, flags)
        await self._ready(server, DEFAULT_ACCOUNT, server.controllers)

    async def end_controllers(self, server: Server) -> None:
        """End them; who watches them starts them again, without what they remember."""
        await asyncio.gather(*(self.processes.end(running) for running in server.controllers.values()))

    async def watch_controllers(self, server: Server) -> None:
        """Wait until one of the controllers ends by itself.

        Raises:
            FluobookError: always, about that program.
        """
        await _first_of(asyncio.Event().wait(), server.controllers)

    def logs_of(self, name: str) -> dict[str, Path]:
        """The logs of a node's part of the control plane, as far as it was started."""
        if (server := self._servers.get(name)) is None:
            return {}
        started = {**server.controllers, **({"kube-apiserver": server.running} if server.running else {})}
        return {program: running.log for program, running in started.items() if program.startswith("kube-")}

    def administrator(self, server: Server) -> Api:
        """A client with all rights, directly to one API server."""
        folder = server.files.folder
        identity = KeyPair((folder / "admin.crt").read_text(), (folder / "admin.key").read_text())
        return Api(server.url, (folder / "ca.crt").read_text(), identity=identity)

    def audit_logs(self) -> list[Path]:
        """The API servers' audit logs."""
        return [server.files.folder / "audit.log" for server in self._servers.values()]

    async def stop(self) -> None:
        """End all programs."""
        await self.processes.stop()
        await self.egress.stop()

    async def _ready(self, server: Server, path: str, needed: Mapping[str, Running]) -> None:
        """Wait until an API server answers, or until one of the programs that this needs has ended."""
        api = self.administrator(server)
        try:
            await _first_of(api.wait_for(path), needed)
        finally:
            await api.close()

    def _server(self, name: str, config: MachineConfiguration, address: str) -> Server:
        """Write a node's files once; a reboot uses them again."""
        if name not in self._servers:
            server = Server(Files(self._folder / name), config, address, free_port())
            write_identities(server.files, config, address)
            arguments.write_settings(server.files, config)
            server.files.write("egress.json", self.egress.configuration())
            write_kubeconfig(server.files, "admin", server.url, "fluobook:lab", [MASTERS])
            for component in ("controller-manager", "scheduler"):
                user = f"system:kube-{component}"
                write_kubeconfig(server.files, component, server.url, user, [user])
            self._servers[name] = server
        return self._servers[name]

    async def _start(self, program: str, flags: list[str], log: str = "") -> Running:
        return await self.processes.start(log or program, [self._programs[program], *flags])


def _written(data: Path, database: bytes) -> None:
    """Replace the data of etcd; without a database it begins anew."""
    shutil.rmtree(data, ignore_errors=True)
    if database:
        folder = data / "member" / "snap"
        folder.mkdir(parents=True, mode=0o700)
        (folder / "db").write_bytes(database)


async def _first_of(response: Coroutine[Any, Any, Any], needed: Mapping[str, Running]) -> None:
    """Wait for a response, unless a program that it needs has ended.

    Raises:
        FluobookError: one has ended.
    """
    waits = (response, *(running.process.wait() for running in needed.values()))
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for program, running in needed.items():
        if running.process.returncode is not None:
            raise FluobookError(
                f"{program} ended with exit code {running.process.returncode}",
                cause=last_error(running.log),
                remedy=f"correct the machine configuration of stage 2; the full log is {running.log}",
            )
