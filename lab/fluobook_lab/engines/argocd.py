"""The real Argo CD beside the pods that stand for it: started once the chart's resources are there."""

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

from fluobook_lab.engines.identities import MASTERS, write_kubeconfig
from fluobook_lab.engines.passage import Passage
from fluobook_lab.engines.processes import Processes, free_port
from fluobook_lab.kube.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook_lab.argocd.repo_server import Programs
    from fluobook_lab.engines.control_plane import Server
    from fluobook_lab.engines.kubernetes import RealKubernetes
    from fluobook_lab.engines.requests import Api
    from fluobook_lab.kube.objects import Obj

NAMESPACE = "argocd"
APPLICATIONS = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/applications"
LOOK = 0.3
"""Real seconds between two looks at what it waits for."""
EXEC_SECONDS = "90s"
"""What one program of the repository server may take."""

RESYNC = "5s"
"""How often Applications are looked at though no event asks for it; 120 s and more on a site, where some wait so long:
no event of a CustomResourceDefinition makes Argo CD look again, not even that it became established."""
PARAMETERS = {
    "controller.diff.server.side": "ARGOCD_APPLICATION_CONTROLLER_SERVER_SIDE_DIFF",
    "controller.sync.timeout.seconds": "ARGOCD_APPLICATION_CONTROLLER_SYNC_TIMEOUT",
}
"""What the controller's pod takes from argocd-cmd-params-cm into its environment; no process looks there itself."""

_log = logging.getLogger(__name__)


class RealArgoCD:
    """Argo CD's processes: redis, the repository server, the API server, the application controller.

    Args:
        kubernetes: the real cluster.
        folder: for their files.
        programs: git, helm and sops, which the repository server calls.
        engines: argocd, kustomize and redis-server.

    Attributes:
        timeline: how Applications came to be: world time, name, and sync, health and phase of the operation.
    """

    def __init__(
        self, kubernetes: RealKubernetes, *, folder: Path, programs: Programs, engines: Mapping[str, str]
    ) -> None:
        self._kubernetes, self._folder = kubernetes, folder
        self._programs, self._engines = programs, engines
        self.timeline: list[tuple[float, str, str]] = []
        self._ports = {name: free_port() for name in ("redis", "repo", "repo-metrics", "server", "server-metrics")}
        self._password = secrets.token_hex(16)
        self._passages: list[Passage] = []
        self._sockets = Path()
        self._processes: Processes | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to wait for the chart's resources; returns at once."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(_tell)

    async def stop(self) -> None:
        """End the processes."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._processes:
            await self._processes.stop()
        for passage in self._passages:
            passage.close()
        if self._sockets != Path():
            shutil.rmtree(self._sockets, ignore_errors=True)

    async def _run(self) -> None:
        server = self._kubernetes.first
        if server is None:
            raise RuntimeError("Argo CD starts after the API server")
        api = self._kubernetes.plane.administrator(server)
        try:
            apps = f"/apis/apps/v1/namespaces/{NAMESPACE}"
            await _until(api, f"{apps}/deployments/argocd-server")
            await _until(api, APPLICATIONS)
            await self._begin(api, server)
            await _until(api, f"{apps}/statefulsets/argocd-application-controller")
            await self._control(server, await _parameters(api))
            await self._follow(api)
        finally:
            await api.close()

    async def _begin(self, api: Api, server: Server) -> None:
        """Start all but the controller; the API server first makes what the controller needs."""
        processes = self._processes = Processes(self._prepared(server))
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

    async def _control(self, server: Server, parameters: Mapping[str, str]) -> None:
        """Start the controller in a network of its own: its metrics listen at every address, whatever it is told."""
        self._sockets = Path(tempfile.mkdtemp(prefix="fluobook-"))
        ports = [server.port, self._ports["redis"], self._ports["repo"]]
        for port in ports:
            passage = Passage(port)
            await passage.open_file(self._sockets / str(port))
            self._passages.append(passage)
        flags = [f"--redis=127.0.0.1:{self._ports['redis']}", f"--repo-server=127.0.0.1:{self._ports['repo']}"]
        flags += ["--repo-server-plaintext", "--persist-resource-health", "--metrics-port=8082"]
        env = self._environment(server) | {"ARGOCD_CONTROLLER_REPLICAS": "1", "ARGOCD_SYNC_WAVE_DELAY": "0"}
        env |= {"HOSTNAME": "argocd-application-controller-0", "PYTHONPATH": str(Path(__file__).parents[2])}
        env |= {PARAMETERS[name]: value for name, value in parameters.items() if name in PARAMETERS}
        inside = [sys.executable, "-m", "fluobook_lab.engines.namespace"]
        inside += [str(self._sockets), ",".join(map(str, ports))]
        await self._argocd("application-controller", flags, env, before=inside)

    async def _argocd(
        self, name: str, flags: list[str], env: Mapping[str, str], *, before: list[str] | None = None
    ) -> None:
        if self._processes is None:
            raise RuntimeError("nothing is prepared")
        command = [*(before or []), self._engines["argocd"], *flags, "--logformat=text", "--loglevel=info"]
        await self._processes.start(f"argocd-{name}", command, {**env, "ARGOCD_BINARY_NAME": f"argocd-{name}"})

    def _prepared(self, server: Server) -> Path:
        """Its folders, and the programs that it finds by name."""
        folder = self._folder
        for name in ("home/.config/sops/age", "tmp", "tls", "ssh", "gpg/source", "plugins", "conf", "bin"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "gpg/keys").mkdir(mode=0o700, exist_ok=True)
        (folder / "ssh/ssh_known_hosts").touch()
        for name, path in {**vars(self._programs), **self._engines}.items():
            link = folder / "bin" / name
            link.unlink(missing_ok=True)
            link.symlink_to(path)
        # It is called for each git source, even with GnuPG switched off.
        _script(folder / "bin/git-verify-wrapper.sh", "#!/bin/sh\nexit 0\n")
        ksops = Path(__file__).with_name("ksops.py")
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
            "KUBECONFIG": server.files.named("argocd.kubeconfig"),
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_TLS_DATA_PATH": str(folder / "tls"),
            "ARGOCD_SSH_DATA_PATH": str(folder / "ssh"),
            "ARGOCD_GNUPGHOME": str(folder / "gpg/keys"),
            "ARGOCD_GPG_DATA_PATH": str(folder / "gpg/source"),
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_PLUGINSOCKFILEPATH": str(folder / "plugins"),
            "ARGOCD_APP_CONF_PATH": str(folder / "conf"),
            "ARGOCD_ASK_PASS_SOCK": str(folder / "ask.sock"),
            "ARGOCD_EXEC_TIMEOUT": EXEC_SECONDS,
            "ARGOCD_RECONCILIATION_TIMEOUT": RESYNC,  # and how long a branch's commit is remembered
            "ARGOCD_RECONCILIATION_JITTER": "0s",
            "REDIS_PASSWORD": self._password,
            "SOPS_AGE_KEY_FILE": str(home / ".config/sops/age/keys.txt"),
            "SOPS_DISABLE_VERSION_CHECK": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }

    async def _age_key(self, api: Api) -> None:
        """What the pod would find mounted: the Secret that stage 6 made."""
        secret = await _until(api, f"/api/v1/namespaces/{NAMESPACE}/secrets/sops-age-key")
        path = self._folder / "home/.config/sops/age/keys.txt"
        path.touch(mode=0o600)
        path.write_bytes(base64.b64decode(secret["data"]["keys.txt"]))

    async def _follow(self, api: Api) -> None:
        """Keep the timeline."""
        last: dict[str, str] = {}
        while True:
            try:
                listed = await api.get(APPLICATIONS)
                for found in listed["items"]:
                    self._note(last, found)
                async for event in api.watch(APPLICATIONS, listed["metadata"]["resourceVersion"]):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._note(last, event["object"])
            except (ApiError, OSError, aiohttp.ClientError, TimeoutError) as error:
                _log.info("watch of Applications: %s", error)
                await asyncio.sleep(LOOK)

    def _note(self, last: dict[str, str], found: Obj) -> None:
        name, status = found["metadata"]["name"], found.get("status") or {}
        parts = [str((status.get(part) or {}).get("status", "")) for part in ("sync", "health")]
        state = " ".join(filter(None, [*parts, str((status.get("operationState") or {}).get("phase", ""))]))
        if last.get(name) != state:
            last[name] = state
            self.timeline.append((self._kubernetes.clock.now(), name, state))


async def _until(api: Api, path: str) -> dict[str, dict[str, str]]:
    while True:
        try:
            return await api.get(path)
        except (ApiError, OSError, aiohttp.ClientError, TimeoutError):
            await asyncio.sleep(LOOK)


async def _parameters(api: Api) -> Mapping[str, str]:
    found = await _until(api, f"/api/v1/namespaces/{NAMESPACE}/configmaps/argocd-cmd-params-cm")
    return found.get("data") or {}


async def _healthy(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.ok:
                        return
            except (OSError, aiohttp.ClientError):
                pass
            await asyncio.sleep(LOOK)


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.error("Argo CD: %r", error, exc_info=error)
