"""The life of a Talos node in simulated time: maintenance, installation, the boot from disk, etcd, the kubelet."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fluobook.machine.disks import selected
from fluobook.machine.document_checks import unwritable_files
from fluobook.machine.pki import load_identity, new_authority
from fluobook.params.versions import minor_of
from fluobook_lab.http import issue_for
from fluobook_lab.talos.config import load
from fluobook_lab.talos.describe import describe
from fluobook_lab.talos.node import (
    PREPARING,
    RUNNING,
    STARTING,
    UP,
    WAITING_FOR_CRI,
    EtcdMember,
    Nodes,
    ServiceState,
    SystemDisk,
    TalosMachine,
    etcd_version,
)
from fluobook_lab.talos.services import services

if TYPE_CHECKING:
    from fluobook.machine.pki import KeyPair
    from fluobook_lab.proxmox.model import VmBoot
    from fluobook_lab.talos.config import MachineConfiguration
    from fluobook_lab.talos.node import Etcd

log = logging.getLogger(__name__)

EXTENSION_SERVICES = {"iscsi-tools": ("iscsid", "tgtd"), "qemu-guest-agent": ("qemu-guest-agent",)}
"""The services of those extensions that have any."""

ANSWER_TIME = 0.05
"""Real seconds for an answer to leave before its connection is cut, independent of the time scale."""


class TalosMachines(Nodes):
    """All Talos nodes of a lab; boots them in virtual machines (`fluobook_lab.proxmox.model.Machines`)."""

    def power_on(self, vm: VmBoot) -> None:
        """Boot a machine; its disks have the content of its last run."""
        self.power_off(vm.uuid)
        disk = self.disks.setdefault(vm.uuid, SystemDisk())
        node = TalosMachine(vm, disk, self.sockets.get(self.address_of(vm)), self, describe)
        self.nodes[vm.uuid] = node
        node.life = asyncio.create_task(_live(node), name=f"talos {vm.name}")

    def power_off(self, uuid: str) -> None:
        """Cut the power of a machine."""
        if node := self.nodes.pop(uuid, None):
            if node.life:
                node.life.cancel()
            node.go_down()

    def forget(self, uuid: str) -> None:
        """Remove a destroyed machine and the content of its disks."""
        self.power_off(uuid)
        self.disks.pop(uuid, None)
        self._away.pop(uuid, None)

    def on_authorities(self, node: TalosMachine, config: MachineConfiguration) -> None:
        """A running node got other authorities of the Talos API."""
        if node.reissue:
            node.reissue.cancel()
        node.reissue = asyncio.create_task(_reissue(node, config), name=f"certificate of {node.vm.name}")
        node.reissue.add_done_callback(_report_defect)

    async def stop(self) -> None:
        """Cut the power of all machines."""
        lives = [node.life for node in self.nodes.values() if node.life]
        for uuid in list(self.nodes):
            self.power_off(uuid)
        self.close()
        await asyncio.gather(*lives, return_exceptions=True)


async def _live(node: TalosMachine) -> None:
    """Boot, carry out a reboot request, boot again; until power-off."""
    delays, clock = node.nodes.delays, node.nodes.clock
    await clock.sleep(delays.boot)
    if node.disk.previous and node.nodes.faults.take("talos.cold-boot-fails-once"):
        await asyncio.Event().wait()  # its firmware hangs, until the VM is switched off again
    while True:
        running = asyncio.create_task(_run(node))
        running.add_done_callback(_report_defect)
        try:
            action = await node.request
            node.request = asyncio.get_running_loop().create_future()
            await asyncio.sleep(ANSWER_TIME)
        finally:
            node.go_down()
            await _cancel(running)
        if action == "poweroff":
            node.nodes.stopped(node.vm.uuid)
            return
        await clock.sleep(delays.reboot)
        node.enumerate_disks()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _report_defect(running: asyncio.Task[None]) -> None:
    """Log an exception in the lab's own code; otherwise it would look like a node that hangs."""
    if not running.cancelled() and (error := running.exception()):
        log.error("a node of the lab failed", exc_info=error)


async def _run(node: TalosMachine) -> None:
    if not node.disk.image and not node.vm.image:
        return  # nothing to boot: the firmware waits
    if node.disk.image and node.disk.drive != node.vm.disks[0][0]:
        # The firmware starts scsi0 or the ISO alone, and the ISO's Talos halts because it is installed on another disk.
        return
    node.booted = node.disk.image or node.vm.image
    node.boot_id = str(UUID(int=node.nodes.random.getrandbits(128), version=4))
    node.services |= dict.fromkeys(("auditd", "containerd", "dashboard", "machined", "syslogd", "udevd"), UP)
    if not node.disk.config:
        await _maintain(node)
    if node.disk.image:
        await _start(node)
    else:
        await _install(node)


async def _maintain(node: TalosMachine) -> None:
    node.enter("maintenance")
    if node.endpoint:
        # The certificate's authority exists for this boot only, and clients need no certificate.
        authority = new_authority(organization="talos", algorithm="ed25519")
        context = _tls(issue_for(authority, [node.address], common_name="maintenance-service.talos.dev"))
        context.verify_mode = ssl.CERT_NONE
        await node.endpoint.open(services(node), context)
    await node.configured.wait()
    if not node.disk.image:
        node.enter("installing")
    await asyncio.sleep(ANSWER_TIME)
    await node.nodes.clock.sleep(node.nodes.delays.leave)


async def _install(node: TalosMachine) -> None:
    """Write Talos to the disk and restart from it; without such a disk the configuration is lost, as in Talos."""
    if node.endpoint:
        node.endpoint.close()
    config = node.config
    if config is None:
        raise RuntimeError("an installation needs a configuration")
    api = asyncio.create_task(_open_api(node))
    try:
        await node.nodes.clock.sleep(node.nodes.delays.install)
    finally:
        await _cancel(api)
    paths = [disk["dev_path"] for disk in selected(config.install, [disk.spec for disk in node.disks])]
    drive = next((disk.drive for disk in node.disks if disk.path in paths), "")
    if drive and not node.nodes.faults.take("talos.install-fails-once"):
        node.disk.image = str(config.install.get("image") or f"ghcr.io/siderolabs/installer:{node.image.version}")
        node.disk.drive, node.disk.config = drive, config.canonical
    node.restart("reboot", "rebooting")


async def _start(node: TalosMachine) -> None:
    """Boot from disk. A control plane is "booting" until its etcd runs, which needs a bootstrap."""
    clock, delays = node.nodes.clock, node.nodes.delays
    if node.disk.on_trial and node.nodes.faults.take("talos.boot-fails-once"):
        node.disk.image, node.disk.previous, node.disk.on_trial = node.disk.previous, node.disk.image, False
        node.restart("reboot", "booting")
        return
    node.config = node.config or load(node.disk.config, node.image.version)
    node.disk.config = node.config.canonical
    node.services["kubelet"] = WAITING_FOR_CRI
    node.enter("booting")
    async with asyncio.TaskGroup() as group:
        group.create_task(_open_api(node))
        if any(unwritable_files(node.config.machine)):
            await clock.sleep(delays.failed)
            node.restart("reboot", "booting")
            return
        await clock.sleep(delays.cri)
        node.set_service("cri", UP)
        for extension, _ in node.nodes.extensions_of(node.image):
            for name in EXTENSION_SERVICES.get(extension.rpartition("/")[2], ()):
                node.set_service(f"ext-{name}", RUNNING)
        kubelet = group.create_task(_start_kubelet(node))
        if node.config.is_control_plane:
            await _start_etcd(node)
        await kubelet
        node.kubelet_announced, node.disk.on_trial = True, False
        node.enter("running")
        node.nodes.note(node, up=True)
        node.nodes.cluster.on_node_up(node, node.config)


async def _open_api(node: TalosMachine) -> None:
    """Serve with certificates of the cluster; a worker needs a control plane that signs its certificate (trustd)."""
    config = node.config
    # A metal installer on nocloud does not read the cloud-init drive, so its static address is lost (F24).
    lost_address = node.vm.address and node.image.platform != "nocloud"
    if config is None or not node.endpoint or lost_address:
        return
    await node.endpoint.open(services(node), await _api_context(node, config))
    node.api_up = True
    for name in ("apid", "trustd") if config.is_control_plane else ("apid",):
        node.services[name] = UP
    node.publish()
    node.nodes.changed()


async def _api_context(node: TalosMachine, config: MachineConfiguration) -> ssl.SSLContext:
    """A new certificate, and the authorities whose clients are accepted."""
    authority = await node.nodes.until(lambda: node.nodes.authority_for(config))
    names = ["127.0.0.1", node.hostname, node.address, *config.certificate_names]
    context = _tls(issue_for(authority, names, common_name=node.hostname))
    context.load_verify_locations(cadata="\n".join([config.authority().crt, *config.accepted_authorities]))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def _reissue(node: TalosMachine, config: MachineConfiguration) -> None:
    """Show another certificate to new connections; open ones stay, as in Talos."""
    context = await _api_context(node, config)
    if node.endpoint:
        node.endpoint.present(context)


def _tls(identity: KeyPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    load_identity(context, identity)
    return context


async def _start_kubelet(node: TalosMachine) -> None:
    await node.nodes.clock.sleep(node.nodes.delays.kubelet)
    node.set_service("kubelet", UP)


async def _start_etcd(node: TalosMachine) -> None:
    """Start the member on the disk; without one, wait for a bootstrap or for a cluster to join."""
    nodes, uuid = node.nodes, node.vm.uuid
    if node.disk.etcd is None:
        node.set_service("etcd", PREPARING)
        node.disk.etcd = await _new_or_joined(node)
    etcd, version = node.disk.etcd, minor_of(etcd_version(node.image.version))
    if version < etcd.storage:
        problem = f"invalid downgrade; server version is lower than determined cluster version: {etcd.storage}"
        node.set_service("etcd", ServiceState("Failed", message=problem))
        await asyncio.Event().wait()
    node.set_service("etcd", STARTING)
    await nodes.clock.sleep(nodes.delays.etcd)
    etcd.members.setdefault(uuid, EtcdMember(nodes.random.getrandbits(64), node.hostname, node.address))
    etcd.runs(uuid, version)
    etcd.up.add(uuid)
    node.set_service("etcd", UP)
    nodes.changed()
    if not etcd.announced and node.config is not None:
        etcd.announced = True
        nodes.cluster.on_bootstrap(node, node.config)


async def _new_or_joined(node: TalosMachine) -> Etcd:
    """The first of: the cluster of a Bootstrap call to this node, or a cluster with the same id and a quorum."""
    bootstrapped = asyncio.create_task(node.bootstrapped.wait())
    joined = asyncio.create_task(node.nodes.until(lambda: node.nodes.etcd_to_join(node)))
    try:
        await asyncio.wait([bootstrapped, joined], return_when=asyncio.FIRST_COMPLETED)
        return node.disk.etcd or joined.result()
    finally:
        await _cancel(bootstrapped, joined)
