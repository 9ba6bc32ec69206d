"""Fixtures for every folder: an event loop in the background, and a Proxmox VE of the lab with our client to it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.clients.proxmox import ProxmoxClient, ProxmoxEndpoint
from fluobook.lab.clock import Clock
from fluobook.lab.faults import Faults
from fluobook.lab.proxmox import Durations, Host, ProxmoxLab, Storage, Token
from fluobook.machine.pki import KeyPair, issue, load_identity, new_authority

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from fluobook.lab.vm import VmBoot

BOUND = 30
"""Seconds that anything in the background may take."""


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


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield Background(loop)
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


class Plugs:
    """Stands in for the machines: remembers what was switched on and off."""

    def __init__(self) -> None:
        self.on: list[VmBoot] = []
        self.off: list[str] = []

    def power_on(self, vm: VmBoot) -> None:
        self.on.append(vm)

    def power_off(self, uuid: str) -> None:
        self.off.append(uuid)


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
