"""Talos nodes of the lab on their own event loop, and the configurations of one cluster."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from dataclasses import dataclass, field

import pytest
import yaml
from fluobook_lab.clock import Clock
from fluobook_lab.faults import Faults
from fluobook_lab.grpc import reserve
from fluobook_lab.kube import snapshots
from fluobook_lab.proxmox.model import VmBoot
from fluobook_lab.talos import TalosMachines

from fluobook.clients.talos import Address, connect, probe
from fluobook.machine.disks import SYSTEM
from fluobook.machine.pki import KeyPair, issue, new_authority

SPEED = 400
INSTALLER = "factory.talos.dev/nocloud-installer/" + "ab" * 32 + ":v1.13.9"
ISO = "talos-" + "ab" * 32 + "-v1.13.9-nocloud-amd64.iso"


@dataclass
class Pki:
    """The authorities of one cluster, and client certificates for each role."""

    talos: KeyPair = field(default_factory=lambda: new_authority(organization="talos", algorithm="ed25519"))
    kubernetes: KeyPair = field(default_factory=lambda: new_authority(organization="kubernetes"))

    def client(self, role: str = "os:admin") -> KeyPair:
        return issue(self.talos, organizations=[role], client=True)


@dataclass
class RecordedCluster:
    """Records the calls that nodes make to the Kubernetes side."""

    events: list[tuple[str, str]] = field(default_factory=list)

    def on_bootstrap(self, node, _config):
        self.events.append(("bootstrap", node.hostname))

    def on_node_up(self, node, config):
        self.events.append(("up", config.hostname or node.vm.name))

    def on_node_down(self, node):
        self.events.append(("down", node.vm.name))

    async def snapshot(self, node):
        self.events.append(("snapshot", node.hostname))
        return snapshots.written([("/registry/pods/a", {"metadata": {"resourceVersion": "7"}})] * 2, {}, 7)

    def on_config(self, node, _config):
        self.events.append(("config", node.hostname))


class TalosLab:
    """The lab's nodes in a thread, and fluobook's client for them."""

    def __init__(self, faults=()):
        self.pki, self.cluster = Pki(), RecordedCluster()
        self.extensions = [("siderolabs/iscsi-tools", "v0.2.0")]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.sockets = {f"10.10.0.{n}": reserve() for n in (10, 11, 12, 20, 21)}
        self.machines = TalosMachines(
            self.sockets,
            clock=Clock(SPEED),
            faults=Faults(faults),
            random=random.Random(1),
            cluster=self.cluster,
            extensions=lambda _: self.extensions,
        )

    def do(self, function, *args):
        async def call():
            result = function(*args)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(30)

    def stop(self):
        self.do(self.machines.stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        for reserved in self.sockets.values():
            reserved.close()

    def power_on(self, name, address="10.10.0.10", **changes):
        number = int(address.rsplit(".", 1)[1])
        values = {
            "vmid": 8000 + number, "name": name, "host": "pve1", "mac": f"BC:24:11:00:00:{number:02X}",
            "uuid": f"6f1e0c5a-7a1b-5c3d-9e8f-0000000000{number}", "cores": 2, "memory_mib": 8192,
            "disks": (("scsi0", 20), ("scsi1", 80)), "image": ISO, "address": f"{address}/24",
            "gateway": "10.10.0.1", "hostname": name, "agent": True,
        }  # fmt: skip
        vm = VmBoot(**(values | changes))
        self.do(self.machines.power_on, vm)
        return vm

    def address(self, ip="10.10.0.10"):
        return Address("127.0.0.1", self.sockets[ip].getsockname()[1], server_name=ip)

    def connect(self, ip="10.10.0.10", role="os:admin", pki=None):
        pki = pki or self.pki
        pair = pki.client(role)
        return connect(self.address(ip), ca=pki.talos.crt, crt=pair.crt, key=pair.key)

    def probe(self, ip="10.10.0.10", pki=None):
        pki = pki or self.pki
        return probe(self.address(ip), ca=pki.talos.crt, identity=pki.client())

    def wait(self, condition, seconds=60):
        """Poll until the condition returns a true value."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, f"timed out after {seconds} s"
            time.sleep(0.01)
        return value

    def wait_mode(self, mode, ip="10.10.0.10"):
        return self.wait(lambda: node if (node := self.probe(ip)).mode.value == mode else None)

    def wait_stage(self, name, stage):
        return self.wait(lambda: self.do(lambda: self.machines.node(name).stage) == stage)

    def controlplane(self, hostname="cp-1", **machine):
        return self._config("controlplane", hostname, self.pki.talos, self.pki.kubernetes, machine)

    def worker(self, hostname="worker-1", **machine):
        talos, kubernetes = (KeyPair(pair.crt, "") for pair in (self.pki.talos, self.pki.kubernetes))
        return self._config("worker", hostname, talos, kubernetes, machine)

    def _config(self, kind, hostname, talos, kubernetes, machine):
        main = {
            "version": "v1alpha1",
            "machine": {
                "type": kind,
                "token": "abcdef.0123456789abcdef",
                "ca": talos.to_base64(),
                "install": {"diskSelector": {"busPath": SYSTEM}, "image": INSTALLER},
                **machine,
            },
            "cluster": {
                "id": "fluodata-id",
                "clusterName": "fluodata",
                "controlPlane": {"endpoint": "https://10.10.0.10:6443"},
                "ca": kubernetes.to_base64(),
            },
        }
        host = {"apiVersion": "v1alpha1", "kind": "HostnameConfig", "auto": "off", "hostname": hostname}
        return yaml.safe_dump_all([main, host])


@pytest.fixture
def start_lab():
    with contextlib.ExitStack() as stack:

        def make(*faults):
            created = TalosLab(faults)
            stack.callback(created.stop)
            return created

        yield make


@pytest.fixture
def lab(start_lab):
    return start_lab()
