"""A node's life, as a sequence in world time: maintenance, installation, the boot from disk, etcd, the kubelet."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook_lab.talos.config import load
from fluobook_lab.talos.service_state import preparing, starting, up, waiting
from fluobook_lab.talos.services import services
from fluobook_lab.talos.tls import api_context, maintenance_context

if TYPE_CHECKING:
    from fluobook_lab.talos.etcd import Etcd
    from fluobook_lab.talos.machine import TalosMachine


@dataclass(frozen=True)
class Delays:
    """How long things take, in world seconds."""

    boot: float = 15
    """From power-on until Talos runs."""
    leave: float = 1
    """From an accepted configuration until maintenance mode has ended."""
    install: float = 40
    reboot: float = 20
    """From the order until Talos runs again."""
    cri: float = 3
    etcd: float = 10
    kubelet: float = 15


log = logging.getLogger(__name__)

ANSWER = 0.05
"""Real seconds for an answer to leave before its connection is cut; world time may be a thousand times as fast."""


async def live(node: TalosMachine) -> None:
    """Boot, obey orders, boot again; until the power goes."""
    delays, clock = node.world.delays, node.world.clock
    await clock.sleep(delays.boot)
    while True:
        running = asyncio.create_task(_run(node))
        running.add_done_callback(_report)
        try:
            order = await node.ordered()
            await asyncio.sleep(ANSWER)
        finally:
            go_down(node)
            await _end(running)
        if order == "poweroff":
            node.world.stopped(node.vm.uuid)
            return
        await clock.sleep(delays.reboot)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they have gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _report(running: asyncio.Task[None]) -> None:
    """A defect of the lab must be seen, not look like a node that hangs."""
    if not running.cancelled() and (error := running.exception()):
        log.error("a node of the lab broke", exc_info=error)


def go_down(node: TalosMachine) -> None:
    """Everything that ends when a node stops, whatever the reason."""
    if node.endpoint:
        node.endpoint.close()
    node.api_up = False
    if node.disk.etcd:
        node.disk.etcd.up.discard(node.vm.uuid)
    if node.told_up:
        node.told_up = False
        node.world.cluster.on_node_down(node)
    node.forget_life()
    node.world.changed()


async def _run(node: TalosMachine) -> None:
    if not node.disk.image and not node.vm.image:
        return  # nothing to boot from: the firmware waits for ever
    if not node.disk.config:
        await _maintain(node)
    if node.disk.image:
        await _start(node)
    else:
        await _install(node)


async def _maintain(node: TalosMachine) -> None:
    node.enter("maintenance")
    if node.endpoint:
        context = maintenance_context([node.address] if node.address else [])
        await node.endpoint.open(services(node), context)
    await node.applied()
    if not node.disk.image:
        node.enter("installing")
    await asyncio.sleep(ANSWER)
    await node.world.clock.sleep(node.world.delays.leave)


async def _install(node: TalosMachine) -> None:
    """Write Talos to the disk, and start again from there; without such a disk the configuration is lost (as there)."""
    if node.endpoint:
        node.endpoint.close()
    config = node.config
    if config is None:
        raise RuntimeError("a node installs only what was applied")
    api = asyncio.create_task(_open_api(node))
    try:
        await node.world.clock.sleep(node.world.delays.install)
    finally:
        await _end(api)
    device = str(config.install.get("disk") or "").removeprefix("/dev/")
    if device in node.devices and not node.world.faults.take("talos.install-fails-once"):
        node.disk.image = str(config.install.get("image") or f"ghcr.io/siderolabs/installer:{node.image.version}")
        node.disk.device, node.disk.config = f"/dev/{device}", config.canonical
    node.order("reboot", "rebooting")


async def _start(node: TalosMachine) -> None:
    """Boot from disk. A control plane is "booting" until its etcd runs, which is until somebody bootstraps it."""
    clock, delays = node.world.clock, node.world.delays
    node.config = node.config or load(node.disk.config)
    node.disk.config = node.config.canonical
    for name in ("machined", "containerd", "udevd", "syslogd", "auditd", "dashboard"):
        node.services[name] = up()
    node.services["kubelet"] = waiting('Waiting for service "cri" to be "up"')
    node.enter("booting")
    async with asyncio.TaskGroup() as group:
        group.create_task(_open_api(node))
        await clock.sleep(delays.cri)
        node.set_service("cri", up())
        kubelet = group.create_task(_start_kubelet(node))
        if node.config.is_control_plane:
            await _start_etcd(node)
        await kubelet
        node.told_up = True
        node.enter("running")
        node.world.cluster.on_node_up(node, node.config)


async def _open_api(node: TalosMachine) -> None:
    """Serve with certificates of the cluster; a worker must first have its own signed by a control plane's trustd."""
    config = node.config
    if config is None or not node.endpoint or not _keeps_its_address(node):
        return
    authority = await node.world.until(lambda: node.world.authority_for(config))
    names = [node.address, *config.certificate_names]
    context = api_context(authority, hostname=node.hostname, names=names, accepted=config.accepted_authorities)
    await node.endpoint.open(services(node), context)
    node.api_up = True
    for name in ("apid", "trustd") if config.is_control_plane else ("apid",):
        node.services[name] = up()
    node.publish()
    node.world.changed()


def _keeps_its_address(node: TalosMachine) -> bool:
    """A metal installer on nocloud never reads the cloud-init drive, so its static address is lost (F24)."""
    return not node.vm.address or node.image.platform == "nocloud"


async def _start_kubelet(node: TalosMachine) -> None:
    await node.world.clock.sleep(node.world.delays.kubelet)
    node.set_service("kubelet", up())


async def _start_etcd(node: TalosMachine) -> None:
    """Start the member that the disk holds, or begin a cluster when told to, or join the one that appears."""
    world, uuid = node.world, node.vm.uuid
    if node.disk.etcd is None:
        node.set_service("etcd", preparing())
        node.disk.etcd = await _begin_or_join(node)
    etcd = node.disk.etcd
    node.set_service("etcd", starting())
    await world.clock.sleep(world.delays.etcd)
    etcd.join(uuid, node.hostname, node.address, random=world.random)
    etcd.up.add(uuid)
    node.set_service("etcd", up())
    world.changed()
    if not etcd.announced and node.config is not None:
        etcd.announced = True
        world.cluster.on_bootstrap(node, node.config)


async def _begin_or_join(node: TalosMachine) -> Etcd:
    """Whichever comes first: our own Bootstrap, or a cluster of the same id that has a quorum."""
    begin = asyncio.create_task(node.bootstrapped())
    join = asyncio.create_task(node.world.until(lambda: node.world.etcd_to_join(node)))
    try:
        await asyncio.wait([begin, join], return_when=asyncio.FIRST_COMPLETED)
        return node.disk.etcd or join.result()
    finally:
        await _end(begin, join)
