"""Power state of virtual machines: start, stop, reboot, and the locks on a VM."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fluobook.params import cpus
from fluobook_lab.proxmox.model import GIB, VmBoot
from fluobook_lab.proxmox.options import DRIVE, NET, TaskError, bytes_of, parse, parse_net
from fluobook_lab.proxmox.storage import find_volume

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fluobook_lab.proxmox.model import Backend, Call, Host, Task, Vm

_BUSES = ("scsi", "virtio", "sata", "ide")
_MINIMUM_WAIT = 1.0
"""Real seconds that a worker waits for a lock at least, so that a high time scale does not cause timeouts."""


@asynccontextmanager
async def locked(backend: Backend, vm: Vm) -> AsyncIterator[None]:
    """Hold the lock on a VM's configuration file.

    Raises:
        TaskError: another worker holds it for too long.
    """
    try:
        await asyncio.wait_for(vm.flock.acquire(), max(_MINIMUM_WAIT, backend.durations.flock / backend.clock.speed))
    except TimeoutError:
        raise TaskError(f"can't lock file '/var/lock/qemu-server/lock-{vm.vmid}.conf' - got timeout") from None
    try:
        yield
    finally:
        vm.flock.release()


def set_lock(backend: Backend, vm: Vm, lock: str, seconds: float | None = None) -> None:
    """Lock a VM as a backup or a migration does, for simulated seconds or until the lock is removed."""
    vm.config["lock"] = lock

    async def remove() -> None:
        await backend.clock.sleep(seconds or 0)
        vm.config.pop("lock", None)

    if seconds is not None:
        backend.tasks.run_in_background(remove())


def boot_of(vm: Vm, host: Host) -> VmBoot:
    """The hardware, image and cloud-init data that a guest sees when the VM starts now on a host."""
    config = vm.config
    drives = [(name, parse(config[name], "file")) for name in sorted(filter(DRIVE.fullmatch, config), key=_bus_order)]
    files = [drive["file"] for _, drive in drives if drive.get("media") == "cdrom"]
    cloud_init = any("cloudinit" in drive["file"] for _, drive in drives)
    network = parse(config.get("ipconfig0", ""), "ip") if cloud_init else {}
    address = network.get("ip", "")
    return VmBoot(
        vmid=vm.vmid,
        name=vm.name,
        host=vm.host,
        uuid=vm.uuid,
        mac=parse_net(config["net0"])[1].upper() if "net0" in config else "",
        cores=vm.cores,
        memory_mib=vm.memory_mib,
        disks=tuple(
            (name, bytes_of(drive["size"]) // GIB)
            for name, drive in drives
            if drive.get("media") != "cdrom" and not name.startswith(("efidisk", "tpmstate"))
        ),
        image=next((file.rpartition("/")[2] for file in files if ":iso/" in file), ""),
        address="" if address == "dhcp" else address,
        gateway=network.get("gw", ""),
        hostname=vm.name if cloud_init else "",
        agent=vm.agent_enabled,
        cpu_features=frozenset(
            feature
            for feature in host.cpu_features
            if feature not in cpus.LACKING
            or not cpus.lacks(parse(config.get("cpu", "kvm64"), "cputype")["cputype"], feature)
        ),
    )


def _bus_order(name: str) -> tuple[int, int]:
    bus = name.rstrip("0123456789")
    return (_BUSES.index(bus) if bus in _BUSES else len(_BUSES), int(name.removeprefix(bus)))


def current(call: Call) -> dict[str, Any]:
    """GET …/status/current."""
    call.token.need(f"/vms/{call.vmid}", "VM.Audit")
    vm = call.backend.inventory.vm(call.node, call.vmid)
    shown: dict[str, Any] = {
        "vmid": vm.vmid,
        "name": vm.name,
        "status": vm.status,
        "qmpstatus": vm.status,
        "cpus": vm.cores,
        "maxmem": vm.memory_mib * 1024**2,
        "uptime": uptime(call.backend, vm),
        "ha": {"managed": 0},
        "agent": int(vm.agent_enabled),
    }
    shown |= {"tags": vm.config["tags"]} if "tags" in vm.config else {}
    return shown | ({"lock": vm.lock} if vm.lock else {})


def uptime(backend: Backend, vm: Vm) -> int:
    """Simulated seconds since the VM was started; 0 for a stopped VM."""
    return max(1, int(backend.clock.now() - vm.started)) if vm.running else 0


async def boot(backend: Backend, vm: Vm, task: Task) -> None:
    """Apply the pending changes and switch the VM on.

    Raises:
        TaskError: QEMU does not start, or a volume does not exist.
    """
    await backend.clock.sleep(backend.durations.start)
    vm.config, vm.pending, vm.deleted = vm.effective, {}, set()
    host = backend.inventory.host(vm.host)
    if vm.cores > host.cores:
        raise TaskError(f"MAX {host.cores} vcpus allowed per VM on this node")
    nets = (parse_net(value)[2] for name, value in vm.config.items() if NET.fullmatch(name))
    missing = [net["bridge"] for net in nets if net.get("bridge", host.bridges[0]) not in host.bridges]
    task.log += [f"bridge '{bridge}' does not exist" for bridge in missing]
    if missing or backend.faults.take("proxmox.start-task-fails"):
        raise TaskError("start failed: QEMU exited with code 1")
    for name in filter(DRIVE.fullmatch, vm.config):
        volid = parse(vm.config[name], "file")["file"]
        if volid not in {"none", "cdrom"} and find_volume(backend, vm.host, volid) is None:
            raise TaskError(f"volume '{volid}' does not exist")
    vm.running, vm.started = True, backend.clock.now()
    backend.machines.power_on(boot_of(vm, backend.inventory.host(vm.host)))


def halt(backend: Backend, vm: Vm, *, power_off: bool = True) -> None:
    """Mark the VM as stopped and apply its pending changes; `power_off` also stops the guest."""
    if vm.running:
        vm.running = False
        vm.config, vm.pending, vm.deleted = vm.effective, {}, set()
        if power_off:
            backend.machines.power_off(vm.uuid)


def start(call: Call) -> str:
    """POST …/status/start."""

    async def work(backend: Backend, vm: Vm, task: Task) -> None:
        if vm.running:
            raise TaskError(f"VM {vm.vmid} already running")
        await boot(backend, vm, task)

    return _start_worker(call, "qmstart", work)


def stop(call: Call) -> str:
    """POST …/status/stop."""

    async def work(backend: Backend, vm: Vm, _: Task) -> None:
        if vm.running:
            await backend.clock.sleep(backend.durations.stop)
        halt(backend, vm)

    return _start_worker(call, "qmstop", work)


def shutdown(call: Call) -> str:
    """POST …/status/shutdown; with the fault proxmox.shutdown-ignored the guest ignores it."""
    limit, force = float(call.params.get("timeout", 180)), call.params.get("forceStop") == "1"

    async def work(backend: Backend, vm: Vm, _: Task) -> None:
        if vm.running:
            await _shut_down(backend, vm, limit, force=force)

    return _start_worker(call, "qmshutdown", work)


def reboot(call: Call) -> str:
    """POST …/status/reboot."""
    limit = float(call.params.get("timeout", 180))

    async def work(backend: Backend, vm: Vm, task: Task) -> None:
        if not vm.running:
            raise TaskError("VM not running")
        await _shut_down(backend, vm, limit, force=False)
        await boot(backend, vm, task)

    return _start_worker(call, "qmreboot", work)


async def _shut_down(backend: Backend, vm: Vm, limit: float, *, force: bool) -> None:
    ignored = backend.faults.on("proxmox.shutdown-ignored")
    await backend.clock.sleep(limit if ignored else min(limit, backend.durations.shutdown))
    if (ignored or limit < backend.durations.shutdown) and not force:
        raise TaskError("VM quit/powerdown failed - got timeout")
    halt(backend, vm)


def _start_worker(call: Call, type_: str, work: Callable[[Backend, Vm, Task], Awaitable[None]]) -> str:
    call.token.need(f"/vms/{call.vmid}", "VM.PowerMgmt")
    vm = call.backend.inventory.vm(call.node, call.vmid)

    async def run(task: Task) -> None:
        async with locked(call.backend, vm):
            vm.check_lock()
            await work(call.backend, vm, task)

    return call.backend.tasks.fork(call.node, type_, str(vm.vmid), call.token.id, run)
