"""The control plane's processes: one etcd, an API server for each control plane node, and the controllers once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook.errors import FluobookError
from fluobook.machine.pki import KeyPair
from fluobook_lab.engines import arguments
from fluobook_lab.engines.egress import Egress
from fluobook_lab.engines.identities import MASTERS, Files, write_identities, write_kubeconfig
from fluobook_lab.engines.processes import Processes, Running, free_port, last_words
from fluobook_lab.engines.requests import Api

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from pathlib import Path

    from fluobook_lab.talos import MachineConfiguration

DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
"""What the controllers make when they are up, and no pod is accepted without."""
_NO_NODES = """\
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: nodes-are-the-kubelets-own}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector: {matchAnnotations: {fluobook.lab/never: "true"}}
  next: {}
"""


@dataclass
class Server:
    """One node's API server.

    Args:
        files: what it reads.
        config: what its node was given.
        address: the node's.
        port: where it listens on loopback.
        running: its API server, once it was started.
        parts: the controllers and what else stands beside it, on the first control plane.
    """

    files: Files
    config: MachineConfiguration
    address: str
    port: int
    running: Running | None = None
    parts: dict[str, Running] = field(default_factory=dict)


class ControlPlane:
    """Starts and ends the programs.

    Args:
        programs: where they are, by name.
        folder: for all their files.
    """

    def __init__(self, programs: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.processes = Processes(folder)
        self._programs, self._folder = programs, folder
        self._etcd = arguments.Etcd(free_port(), free_port())
        self._servers: dict[str, Server] = {}
        self.egress = Egress()

    async def begin(self, name: str, config: MachineConfiguration, address: str) -> None:
        """Start etcd with the identity that the first control plane's configuration gives it.

        Raises:
            FluobookError: the configuration lacks an authority or key.
        """
        server = self._server(name, config, address)
        await self._start("etcd", arguments.etcd(server.files, self._etcd))

    async def serve(self, name: str, config: MachineConfiguration, address: str) -> Server:
        """Start a node's API server, and wait until it is ready.

        Raises:
            FluobookError: the configuration lacks an authority or key, or the API server ended over it.
        """
        server = self._server(name, config, address)
        await self.egress.start()
        flags = arguments.api_server(server.files, config, address, port=server.port, etcd=self._etcd)
        server.running = await self._start("kube-apiserver", flags, log=f"kube-apiserver-{name}")
        await self._answered(server, "/readyz", {"kube-apiserver": server.running})
        return server

    async def end(self, name: str) -> None:
        """End a node's API server."""
        server = self._servers.get(name)
        if server and server.running:
            await self.processes.end(server.running)

    async def control(self, server: Server) -> None:
        """Start the controllers, the scheduler, and KWOK for pods, unless they run; wait for the controllers' work.

        Raises:
            FluobookError: one of them ended over its configuration.
        """
        files, config = server.files, server.config
        files.write("kwok.yaml", _NO_NODES)
        wanted = {
            "kube-controller-manager": arguments.controller_manager(files, config),
            "kube-scheduler": arguments.scheduler(files, config),
            "kwok": arguments.kwok(files, config, server.address),
        }
        for program, flags in wanted.items():
            if program not in server.parts or server.parts[program].process.returncode is not None:
                server.parts[program] = await self._start(program, flags)
        await self._answered(server, DEFAULT_ACCOUNT, server.parts)

    async def ended(self, server: Server) -> None:
        """Wait until one of the programs beside an API server ends unasked.

        Raises:
            FluobookError: always, about that program.
        """
        await _first_of(asyncio.Event().wait(), server.parts)

    def logs_of(self, name: str) -> dict[str, Path]:
        """The logs of a node's part of the control plane, as far as it was ever started."""
        if (server := self._servers.get(name)) is None:
            return {}
        started = {**server.parts, **({"kube-apiserver": server.running} if server.running else {})}
        return {program: running.log for program, running in started.items() if program.startswith("kube-")}

    def administrator(self, server: Server) -> Api:
        """A client with all rights, straight to one API server."""
        folder = server.files.folder
        identity = KeyPair((folder / "admin.crt").read_text(), (folder / "admin.key").read_text())
        authority = (folder / "ca.crt").read_text()
        return Api(f"https://127.0.0.1:{server.port}", authority, identity=identity)

    def audits(self) -> list[Path]:
        """The API servers' audit logs."""
        return [server.files.folder / "audit.log" for server in self._servers.values()]

    async def stop(self) -> None:
        """End all."""
        await self.processes.stop()
        await self.egress.stop()

    async def _answered(self, server: Server, path: str, needed: Mapping[str, Running]) -> None:
        """Wait until an API server answers, or one of the programs that this takes has ended."""
        api = self.administrator(server)
        try:
            await _first_of(api.until_answered(path), needed)
        finally:
            await api.close()

    def _server(self, name: str, config: MachineConfiguration, address: str) -> Server:
        """Write a node's files, once: what a reboot finds again."""
        if name not in self._servers:
            server = Server(Files(self._folder / name), config, address, free_port())
            write_identities(server.files, config, address)
            arguments.write_settings(server.files, config)
            self.egress.write_settings(server.files)
            url = f"https://127.0.0.1:{server.port}"
            write_kubeconfig(server.files, "admin", url, "fluobook:lab", [MASTERS])
            for part in ("controller-manager", "scheduler"):
                user = f"system:kube-{part}"
                write_kubeconfig(server.files, part, url, user, [user])
            self._servers[name] = server
        return self._servers[name]

    async def _start(self, program: str, flags: list[str], log: str = "") -> Running:
        return await self.processes.start(log or program, [self._programs[program], *flags])


async def _first_of(answer: Coroutine[Any, Any, Any], needed: Mapping[str, Running]) -> None:
    """Wait for an answer, unless a program that it needs has ended.

    Raises:
        FluobookError: one has.
    """
    waits = [asyncio.create_task(one) for one in (answer, *(running.process.wait() for running in needed.values()))]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    for program, running in needed.items():
        if running.process.returncode is not None:
            raise FluobookError(
                f"{program} ended with exit code {running.process.returncode}",
                cause=last_words(running.log),
                remedy=f"correct the machine configuration of stage 2; all of its log is {running.log}",
            )
