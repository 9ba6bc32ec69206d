"""The real Argo CD beside the pods that stand for it: started once the chart's resources exist."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from fluobook.files import temporary_prefix
from fluobook_lab import argocd
from fluobook_lab.engines.api import FAILED
from fluobook_lab.engines.identities import MASTERS, write_kubeconfig
from fluobook_lab.engines.network import Forwarder, python_environment
from fluobook_lab.engines.processes import Processes, free_port, log_failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook_lab.argocd.repo_server import Programs
    from fluobook_lab.engines.api import Api
    from fluobook_lab.engines.control_plane import Server
    from fluobook_lab.engines.kubernetes import RealKubernetes
    from fluobook_lab.kube.objects import Obj

NAMESPACE = "argocd"
APPLICATIONS = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/applications"
POLL_INTERVAL = 0.3
"""Real seconds between two checks of what it waits for."""
RESYNC, SLOW_RESYNC = "5s", "30s"
"""How often Applications are compared without an event; 120 s and more on a site, where some wait that long: no event
of a CustomResourceDefinition makes Argo CD compare again, not even that it is established. Each comparison is a dry
run of all objects, and those of the real charts keep a processor busy at the shorter one."""
PARAMETERS = {
    "controller.diff.server.side": "ARGOCD_APPLICATION_CONTROLLER_SERVER_SIDE_DIFF",
    "controller.sync.timeout.seconds": "ARGOCD_APPLICATION_CONTROLLER_SYNC_TIMEOUT",
}
"""What the controller's pod takes from argocd-cmd-params-cm into its environment; no process reads it directly."""

_log = logging.getLogger(__name__)


class RealArgoCD:
    """Argo CD's processes: redis, repo-server, API server, application controller.

    Args:
        kubernetes: the real cluster.
        folder: for their files.
        programs: git, helm and sops, which the repo-server runs.
        engines: argocd, kustomize and redis-server.
        resync: how often Applications are compared without an event.

    Attributes:
        timeline: the changes of Applications: lab seconds, name, and sync, health and phase of the operation.
    """

    def __init__(
        self, kubernetes: RealKubernetes, *, folder: Path, programs: Programs, engines: Mapping[str, str], resync: str
    ) -> None:
        self._kubernetes, self._folder = kubernetes, folder
        self._programs, self._engines, self._resync = programs, engines, resync
        self.timeline: list[tuple[float, str, str]] = []
        self._ports = {name: free_port() for name in ("redis", "repo", "repo-metrics", "server", "server-metrics")}
        self._password = secrets.token_hex(16)
        self._forwarders: list[Forwarder] = []
        self._sockets = Path()
        self._processes: Processes | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start when the chart's resources exist; returns at once."""
        self._task = asyncio.create_task(self._run(), name="Argo CD")
        self._task.add_done_callback(log_failure)

    async def stop(self) -> None:
        """End the processes."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._processes:
            await self._processes.stop()
        for forwarder in self._forwarders:
            forwarder.close()
        if self._sockets != Path():
            shutil.rmtree(self._sockets, ignore_errors=True)

    async def _run(self) -> None:
        server = self._kubernetes.first
        if server is None:
            raise RuntimeError("Argo CD starts after the API server")
        api = self._kubernetes.plane.administrator(server)
        try:
            apps = f"/apis/apps/v1/namespaces/{NAMESPACE}"
            await api.wait_for(f"{apps}/deployments/argocd-server", interval=POLL_INTERVAL)
            await api.wait_for(APPLICATIONS, interval=POLL_INTERVAL)
            await self._start_servers(api, server)
            await api.wait_for(f"{apps}/statefulsets/argocd-application-controller", interval=POLL_INTERVAL)
            parameters = f"/api/v1/namespaces/{NAMESPACE}/configmaps/argocd-cmd-params-cm"
            await self._start_controller(server, (await api.wait_for(parameters)).get("data") or {})
            await self._record(api)
        finally:
            await api.close()

    async def _start_servers(self, api: Api, server: Server) -> None:
        """Start all but the controller: the API server creates what the controller needs."""
        processes = self._processes = Processes(self._prepare(server))
        env, ports = self._environment(server), self._ports
        redis = ["--bind", "127.0.0.1", "--port", str(ports["redis"]), "--save", "", "--appendonly", "no"]
        redis += ["--requirepass", self._password, "--dir", str(self._folder)]
        await processes.start("redis", [self._engines["redis-server"], *redis])
        common = ["--address=127.0.0.1", "--metrics-address=127.0.0.1", f"--redis=127.0.0.1:{ports['redis']}"]
        repo = [f"--port={ports['repo']}", f"--metrics-port={ports['repo-metrics']}"]
        await self._argocd("repo-server", [*common, *repo, "--disable-tls", "--client-ca-path="], env)
        own = [f"--port={ports['server']}", f"--metrics-port={ports['server-metrics']}", "--insecure"]
        own += ["--disable-auth", f"--repo-server=127.0.0.1:{ports['repo']}", "--repo-server-plaintext"]
        own += ["--dex-server=http://127.0.0.1:1", f"--staticassets={self._folder / 'conf'}"]
        await self._argocd("server", [*common, *own], env)
        await self._age_key(api)
        for port in ("repo-metrics", "server"):
            await _healthy(f"http://127.0.0.1:{ports[port]}/healthz")

    async def _start_controller(self, server: Server, parameters: Mapping[str, str]) -> None:
        """Start the controller in a network namespace: its metrics listen on every address, whatever its flags."""
        self._sockets = Path(tempfile.mkdtemp(prefix=temporary_prefix("argocd")))
        ports = [server.port, self._ports["redis"], self._ports["repo"]]
        for port in ports:
            forwarder = Forwarder(port)
            await forwarder.listen_at(self._sockets / str(port))
            self._forwarders.append(forwarder)
        flags = [f"--redis=127.0.0.1:{self._ports['redis']}", f"--repo-server=127.0.0.1:{self._ports['repo']}"]
        flags += ["--repo-server-plaintext", "--persist-resource-health", "--metrics-port=8082"]
        env = self._environment(server) | {"ARGOCD_CONTROLLER_REPLICAS": "1", "ARGOCD_SYNC_WAVE_DELAY": "0"}
        env |= {"HOSTNAME": "argocd-application-controller-0", **python_environment()}
        env |= {PARAMETERS[name]: value for name, value in parameters.items() if name in PARAMETERS}
        wrapper = [sys.executable, "-m", "fluobook_lab.engines.network"]
        wrapper += [str(self._sockets), ",".join(map(str, ports))]
        await self._argocd("application-controller", flags, env, wrapper)

    async def _argocd(self, name: str, flags: list[str], env: Mapping[str, str], wrapper: Sequence[str] = ()) -> None:
        if self._processes is None:
            raise RuntimeError("the servers start first")
        command = [*wrapper, self._engines["argocd"], *flags, "--logformat=text", "--loglevel=info"]
        await self._processes.start(f"argocd-{name}", command, {**env, "ARGOCD_BINARY_NAME": f"argocd-{name}"})

    def _prepare(self, server: Server) -> Path:
        """Create its folders, its kubeconfig, and the programs that it finds by name."""
        folder = self._folder
        for name in ("home/.config/sops/age", "tmp", "tls", "ssh", "gpg/source", "plugins", "conf", "bin"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "gpg/keys").mkdir(mode=0o700, exist_ok=True)
        (folder / "ssh/ssh_known_hosts").touch()
        for name, path in {**vars(self._programs), **self._engines}.items():
            link = folder / "bin" / name
            link.unlink(missing_ok=True)
            link.symlink_to(path)
        # Argo CD calls it for each git source, even with GnuPG disabled.
        _script(folder / "bin/git-verify-wrapper.sh", "#!/bin/sh\nexit 0\n")
        ksops = Path(*argocd.__path__) / "ksops.py"
        _script(folder / "bin/ksops", f'#!/bin/sh\nexec "{sys.executable}" "{ksops}"\n')
        url = f"https://127.0.0.1:{server.port}"
        write_kubeconfig(server.files, "argocd", url, "fluobook:lab:argocd", [MASTERS], namespace=NAMESPACE)
        return folder

    def _environment(self, server: Server) -> dict[str, str]:
        folder = self._folder
        home = folder / "home"
        return {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "TMPDIR": str(folder / "tmp"),
            "PATH": f"{folder / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "KUBECONFIG": str(server.files.folder / "argocd.kubeconfig"),
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_TLS_DATA_PATH": str(folder / "tls"),
            "ARGOCD_SSH_DATA_PATH": str(folder / "ssh"),
            "ARGOCD_GNUPGHOME": str(folder / "gpg/keys"),
            "ARGOCD_GPG_DATA_PATH": str(folder / "gpg/source"),
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_PLUGINSOCKFILEPATH": str(folder / "plugins"),
            "ARGOCD_APP_CONF_PATH": str(folder / "conf"),
            "ARGOCD_ASK_PASS_SOCK": str(folder / "ask.sock"),
            "ARGOCD_EXEC_TIMEOUT": "90s",
            "ARGOCD_RECONCILIATION_TIMEOUT": self._resync,  # and how long a branch's commit is cached
            "ARGOCD_RECONCILIATION_JITTER": "0s",
            "REDIS_PASSWORD": self._password,
            "SOPS_AGE_KEY_FILE": str(home / ".config/sops/age/keys.txt"),
            "SOPS_DISABLE_VERSION_CHECK": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }

    async def _age_key(self, api: Api) -> None:
        """Write the key that the pod would find mounted: the Secret of stage 6."""
        path = f"/api/v1/namespaces/{NAMESPACE}/secrets/sops-age-key"
        secret = await api.wait_for(path, interval=POLL_INTERVAL)
        file = self._folder / "home/.config/sops/age/keys.txt"
        file.touch(mode=0o600)
        file.write_bytes(base64.b64decode(secret["data"]["keys.txt"]))

    async def _record(self, api: Api) -> None:
        """Add the changes of Applications to the timeline."""
        states: dict[str, str] = {}

        def record(app: Obj) -> None:
            name, status = app["metadata"]["name"], app.get("status") or {}
            parts = [(status.get("sync") or {}).get("status"), (status.get("health") or {}).get("status")]
            parts.append((status.get("operationState") or {}).get("phase"))
            state = " ".join(str(part) for part in parts if part)
            if states.get(name) != state:
                states[name] = state
                self.timeline.append((self._kubernetes.clock.now(), name, state))

        while True:
            try:
                listed = await api.get(APPLICATIONS)
                for app in listed["items"]:
                    record(app)
                async for event in api.watch(APPLICATIONS, listed["metadata"]["resourceVersion"]):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        record(event["object"])
            except FAILED as error:
                _log.info("watch of Applications: %s", error)
                await asyncio.sleep(POLL_INTERVAL)


async def _healthy(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as response:
                    if response.ok:
                        return
            except (OSError, aiohttp.ClientError):
                pass
            await asyncio.sleep(POLL_INTERVAL)


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
