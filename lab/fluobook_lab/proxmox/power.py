"""Switching virtual machines on and off, and what their guest agent says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.proxmox.boot import boot_of
from fluobook_lab.proxmox.errors import TaskError, died
from fluobook_lab.proxmox.locks import locked
from fluobook_lab.proxmox.options import DRIVE, parse
from fluobook_lab.proxmox.storage import find

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fluobook_lab.proxmox.context import Call, World
    from fluobook_lab.proxmox.site import Vm
    from fluobook_lab.proxmox.tasks import Task


def current(call: Call) -> dict[str, Any]:
    """GET …/status/current."""
    call.token.need(f"/vms/{call.vmid}", "VM.Audit")
    vm = call.world.site.vm(call.node, call.vmid)
    state = "running" if vm.running else "stopped"
    shown: dict[str, Any] = {
        "vmid": vm.vmid,
        "name": vm.name,
        "status": state,
        "qmpstatus": state,
        "cpus": int(vm.config.get("cores", 1)) * int(vm.config.get("sockets", 1)),
        "maxmem": int(vm.config.get("memory", 512)) * 1024**2,
        "uptime": uptime(call.world, vm),
        "ha": {"managed": 0},
        "agent": int(parse(vm.config.get("agent", "0"), "enabled").get("enabled") == "1"),
    }
    shown |= {"tags": vm.config["tags"]} if "tags" in vm.config else {}
    return shown | ({"lock": vm.lock} if vm.lock else {})


def uptime(world: World, vm: Vm) -> int:
    """World seconds since it was started."""
    return max(1, int(world.clock.now() - vm.started)) if vm.running else 0


def start(call: Call) -> str:
    """POST …/status/start."""

    async def work(world: World, vm: Vm) -> None:
        vm.check_lock()
        if vm.running:
            raise TaskError(f"VM {vm.vmid} already running")
        await boot(world, vm)

    return _worker(call, "qmstart", work)


async def boot(world: World, vm: Vm) -> None:
    """Take over what is pending, and switch on."""
    await world.clock.sleep(world.durations.start)
    if world.faults.take("proxmox.start-task-fails"):
        raise TaskError("start failed: QEMU exited with code 1")
    vm.config, vm.pending, vm.deleted = vm.effective, {}, set()
    for name in filter(DRIVE.fullmatch, vm.config):
        volid = parse(vm.config[name], "file")["file"]
        if volid not in {"none", "cdrom"} and find(world, vm.host, volid) is None:
            raise TaskError(f"volume '{volid}' does not exist")
    vm.running, vm.started = True, world.clock.now()
    world.machines.power_on(boot_of(vm))


def halt(world: World, vm: Vm, *, pull_plug: bool = True) -> None:
    """The machine is off: changes that waited for it take effect; without `pull_plug` the guest knows already."""
    if vm.running:
        vm.running = False
        vm.config, vm.pending, vm.deleted = vm.effective, {}, set()
        if pull_plug:
            world.machines.power_off(vm.uuid)


def stop(call: Call) -> str:
    """POST …/status/stop."""

    async def work(world: World, vm: Vm) -> None:
        vm.check_lock()
        if vm.running:
            await world.clock.sleep(world.durations.stop)
        halt(world, vm)

    return _worker(call, "qmstop", work)


def shutdown(call: Call) -> str:
    """POST …/status/shutdown; with the fault proxmox.shutdown-ignored the guest does not listen."""
    limit, force = float(call.params.get("timeout", 180)), call.params.get("forceStop") == "1"

    async def work(world: World, vm: Vm) -> None:
        vm.check_lock()
        if vm.running:
            await _shut_down(world, vm, limit, force=force)

    return _worker(call, "qmshutdown", work)


def reboot(call: Call) -> str:
    """POST …/status/reboot."""
    limit = float(call.params.get("timeout", 180))

    async def work(world: World, vm: Vm) -> None:
        vm.check_lock()
        if not vm.running:
            raise TaskError("VM not running")
        await _shut_down(world, vm, limit, force=False)
        await boot(world, vm)

    return _worker(call, "qmreboot", work)


def reset(call: Call) -> str:
    """POST …/status/reset: the guest starts anew, the configuration stays as it is."""

    async def work(world: World, vm: Vm) -> None:
        vm.check_lock()
        if not vm.running:
            raise TaskError("VM is not running")
        world.machines.power_off(vm.uuid)
        vm.started = world.clock.now()
        world.machines.power_on(boot_of(vm))

    return _worker(call, "qmreset", work)


async def _shut_down(world: World, vm: Vm, limit: float, *, force: bool) -> None:
    ignored = world.faults.on("proxmox.shutdown-ignored")
    await world.clock.sleep(limit if ignored else min(limit, world.durations.shutdown))
    if (ignored or limit < world.durations.shutdown) and not force:
        raise TaskError("VM quit/powerdown failed - got timeout")
    halt(world, vm)


def _worker(call: Call, type_: str, work: Callable[[World, Vm], Awaitable[None]]) -> str:
    call.token.need(f"/vms/{call.vmid}", "VM.PowerMgmt")
    vm = call.world.site.vm(call.node, call.vmid)

    async def run(_: Task) -> None:
        async with locked(call.world, vm):
            await work(call.world, vm)

    return call.world.tasks.fork(call.node, type_, str(vm.vmid), call.token.id, run)


def agent(call: Call) -> dict[str, Any]:
    """GET …/agent/network-get-interfaces and POST …/agent/ping."""
    major = int(call.world.site.version.split(".")[0])
    call.token.need(f"/vms/{call.vmid}", "VM.GuestAgent.Audit" if major >= 9 else "VM.Monitor")  # noqa: PLR2004
    vm = call.world.site.vm(call.node, call.vmid)
    if parse(vm.config.get("agent", "0"), "enabled").get("enabled") != "1":
        raise died("No QEMU guest agent configured")
    if not vm.running:
        raise died(f"VM {vm.vmid} is not running")
    interfaces = call.world.guest_agent(vm.uuid)
    if interfaces is None:
        raise died("QEMU guest agent is not running")
    return {"result": interfaces}
