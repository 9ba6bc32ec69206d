"""Fixtures for every folder: an event loop in the background, and parts of the lab with our clients to them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from fluobook_lab.clock import Clock
from fluobook_lab.faults import Faults
from fluobook_lab.kube.cluster import KubeCluster
from fluobook_lab.proxmox import Durations, Host, ProxmoxLab, Storage, Token

from fluobook.clients import tools
from fluobook.clients.kube import Kube
from fluobook.clients.proxmox import ProxmoxClient, ProxmoxEndpoint
from fluobook.machine import pki
from fluobook.machine.pki import KeyPair, issue, load_identity, new_authority

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from fluobook_lab.kube.kubelet import NodeInfo
    from fluobook_lab.proxmox.model import VmBoot

BOUND = 60
"""Seconds that anything in the background may take."""
RSA_BITS = pki.RSA_BITS
"""The size of Talos' own keys; generating one takes half a second, so tests have smaller ones."""
pki.RSA_BITS = 2048

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than processors: a test on the lab waits for half of its time."""
    return (os.cpu_count() or 1) + 1


@dataclass(frozen=True)
class Background:
    """An event loop in its own thread, as the lab has one in its own process."""

    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(BOUND)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a plain function in the loop's thread, where the lab's data may be touched."""

        async def work() -> Any:
            return function(*args, **kwargs)

        return self.run(work())


async def _connections_closed(loop: Any) -> None:
    """Wait for TLS to say goodbye: a transport left open warns as it is collected, wherever pytest is by then."""
    for _ in range(BOUND * 100):
        if not any(transport._sock for transport in list(loop._transports.values())):
            return
        await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield Background(loop)
    asyncio.run_coroutine_threadsafe(_connections_closed(loop), loop).result(BOUND)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(BOUND)
    loop.close()


@pytest.fixture(scope="session")
def authority() -> KeyPair:
    return new_authority(organization="lab", common_name="lab CA")


@pytest.fixture(scope="session")
def ca_file(authority: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_text(authority.crt)
    return path


@pytest.fixture(scope="session")
def tls_of(authority: KeyPair) -> Callable[..., tuple[ssl.SSLContext, str]]:
    """Makes a server's TLS context, and its certificate."""

    def make(*, dns: tuple[str, ...] = (), ips: tuple[str, ...] = ()) -> tuple[ssl.SSLContext, str]:
        pair = issue(authority, common_name="lab", dns=dns, ips=ips, server=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_identity(context, pair)
        return context, pair.crt

    return make


@pytest.fixture
def talos_rsa_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """RSA keys have Talos' own size within the test."""
    monkeypatch.setattr(pki, "RSA_BITS", RSA_BITS)


class Plugs:
    """Stands in for the machines: remembers what was switched on and off."""

    def __init__(self) -> None:
        self.on: list[VmBoot] = []
        self.off: list[str] = []
        self.forgotten: list[str] = []

    def power_on(self, vm: VmBoot) -> None:
        self.on.append(vm)

    def power_off(self, uuid: str) -> None:
        self.off.append(uuid)

    def forget(self, uuid: str) -> None:
        self.forgotten.append(uuid)


IMAGE_URL = "https://factory.talos.dev/image/376567/v1.13.9/nocloud-amd64.iso"
SECRET = "6f1c3a52-aaaa-bbbb-cccc-0123456789ab"
TOKEN = "fluobook@pve!fluobook"
QUICK = Durations(
    download=2.5,
    create=0.6,
    start=0.3,
    stop=0.1,
    shutdown=0.5,
    resize=0.1,
    destroy=0.2,
    allocate=0.01,
    flock=1,
    stale=1,
)


@dataclass
class Rig:
    """A Proxmox VE of the lab, our client to it, and what was switched on."""

    lab: ProxmoxLab
    faults: Faults
    plugs: Plugs
    endpoint: ProxmoxEndpoint
    background: Background
    certificate: str
    clients: list[ProxmoxClient] = field(default_factory=list)

    @property
    def client(self) -> ProxmoxClient:
        if not self.clients:
            self.another()
        return self.clients[0]

    def another(self, **changes: Any) -> ProxmoxClient:
        """Another client, to an endpoint with these changes."""
        self.clients.append(ProxmoxClient(replace(self.endpoint, **changes)))
        return self.clients[-1]

    def paths(self, method: str = "") -> list[str]:
        return [seen.path.removeprefix("/api2/json") for seen in self.lab.requests if method in ("", seen.method)]


@pytest.fixture
def proxmox(
    background: Background, ca_file: Path, tls_of: Callable[..., tuple[ssl.SSLContext, str]]
) -> Iterator[Callable[..., Rig]]:
    """Makes a rig; faults by name, and what else `ProxmoxLab` takes."""
    made: list[Rig] = []

    def make(*faults: str, speed: float = 20, token: Token | None = None, **options: Any) -> Rig:
        played, plugs = Faults(faults), Plugs()
        given: dict[str, Any] = {
            "hosts": (Host("pve1", bridges=("vmbr0", "vmbr1")),),
            "storages": (
                Storage("local", ("iso", "import", "snippets")),
                Storage("local-lvm", ("images",), type="lvmthin"),
            ),
            "tokens": (token or Token(TOKEN, SECRET),),
            "durations": QUICK,
            "images": {IMAGE_URL: 120_000_000}.get,
        } | options
        context, certificate = tls_of(dns=("pve1.lab",), ips=("192.0.2.5",))

        async def start() -> ProxmoxLab:
            lab = ProxmoxLab(clock=Clock(speed), faults=played, machines=plugs, **given)
            await lab.start(0, context)
            return lab

        lab = background.run(start())
        endpoint = ProxmoxEndpoint(
            name="laptop",
            url="https://192.0.2.5:8006",
            token_id=TOKEN,
            token_secret=SECRET,
            address=("127.0.0.1", lab.port),
            ca_file=str(ca_file),
        )
        made.append(Rig(lab, played, plugs, endpoint, background, certificate))
        return made[-1]

    yield make
    for rig in made:
        for client in rig.clients:
            client.close()
        background.run(rig.lab.stop())


@dataclass
class KubeRig:
    """A Kubernetes cluster of the lab over TLS, and ways to it."""

    lab: KubeCluster
    faults: Faults
    authority: KeyPair
    background: Background
    context: ssl.SSLContext
    port: int
    folder: Path
    clients: list[Kube] = field(default_factory=list)

    def kubeconfig(self, common_name: str = "admin", *organizations: str) -> dict[str, Any]:
        """A kubeconfig for a user; the administrator's by default."""
        identity = issue(
            self.authority, common_name=common_name, organizations=organizations or ("system:masters",), client=True
        ).to_base64()
        ca = base64.b64encode(self.authority.crt.encode()).decode()
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority-data": ca}
        user = {"client-certificate-data": identity["crt"], "client-key-data": identity["key"]}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "user"}}],
            "current-context": "lab",
        }

    @property
    def kube(self) -> Kube:
        """The administrator's client."""
        if not self.clients:
            self.another()
        return self.clients[0]

    def another(self, kubeconfig: dict[str, Any] | None = None, **options: Any) -> Kube:
        self.clients.append(Kube.from_kubeconfig(kubeconfig or self.kubeconfig(), **options))
        return self.clients[-1]

    async def restart(self) -> None:
        """Listen again on the same port, after `api.stop()`."""
        await self.lab.api.start(self.port, self.context)

    def join(self, *nodes: NodeInfo) -> None:
        for node in nodes:
            self.background.call(self.lab.join, node)

    def store(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the store, in the lab's own thread."""
        return self.background.call(getattr(self.lab.api.store, method), *args, **kwargs)

    def run(self, tool: str, *args: str, stdin: str = "", ok: bool = True) -> str:
        """Run kubectl or helm; both streams of what it wrote."""
        config = self.folder / "kubeconfig"
        if not config.exists():
            config.write_text(json.dumps(self.kubeconfig()))
        env = {**os.environ, "KUBECONFIG": str(config), "HOME": str(self.folder)}
        command = [str(tools.find(tool).path), *args]
        done = subprocess.run(command, input=stdin, env=env, capture_output=True, text=True, timeout=BOUND, check=False)
        told = done.stdout + done.stderr
        assert (done.returncode == 0) is ok, told
        return told

    def kubectl(self, *args: str, stdin: str = "", ok: bool = True) -> str:
        return self.run("kubectl", *args, stdin=stdin, ok=ok)

    def until(self, question: Callable[[], Any], seconds: float = BOUND) -> Any:
        """Ask until the answer is true; that answer."""
        deadline = time.monotonic() + seconds
        while not (answer := question()):
            assert time.monotonic() < deadline, "it did not come about in time"
            time.sleep(0.02)
        return answer


@pytest.fixture
def kubernetes(background: Background, authority: KeyPair, tmp_path: Path) -> Iterator[Callable[..., KubeRig]]:
    """Makes a cluster; faults by name, `nodes`, and whether its controllers run."""
    made: list[KubeRig] = []

    def make(*faults: str, speed: float = 50, controllers: bool = True, nodes: tuple[NodeInfo, ...] = ()) -> KubeRig:
        played = Faults(faults)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_identity(context, issue(authority, ips=("127.0.0.1",), dns=("kubernetes",), server=True))
        context.load_verify_locations(cadata=authority.crt)
        context.verify_mode = ssl.CERT_OPTIONAL

        async def start() -> tuple[KubeCluster, int]:
            lab = KubeCluster(Clock(speed), played)
            server = await lab.api.start(0, context)
            if controllers:
                lab.start_controllers(authority, bootstrap_token="abcdef.0123456789abcdef")
            return lab, server.port

        lab, port = background.run(start())
        made.append(KubeRig(lab, played, authority, background, context, port, tmp_path))
        made[-1].join(*nodes)
        return made[-1]

    yield make
    for rig in made:
        for client in rig.clients:
            client.close()
        background.run(rig.lab.stop())
