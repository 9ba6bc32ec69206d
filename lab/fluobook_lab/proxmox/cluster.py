"""What the cluster as a whole shows: version, rights, resources, networks, tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.proxmox.errors import wrong
from fluobook_lab.proxmox.power import uptime
from fluobook_lab.proxmox.site import GIB

if TYPE_CHECKING:
    from fluobook_lab.proxmox.context import Call
    from fluobook_lab.proxmox.site import Host, Vm
    from fluobook_lab.proxmox.tasks import Task

FIRST_ID = 100


def version(call: Call) -> dict[str, str]:
    """GET /version."""
    text = call.world.site.version
    return {"version": text, "release": ".".join(text.split(".")[:2]), "repoid": "lab"}


def permissions(call: Call) -> dict[str, dict[str, int]]:
    """GET /access/permissions."""
    return call.token.permissions(call.params.get("path"))


def next_id(call: Call) -> str:
    """GET /cluster/nextid."""
    vms = call.world.site.vms
    if asked := call.params.get("vmid"):
        if not asked.isdigit():
            raise wrong(vmid=f"type check ('integer') failed - got '{asked}'")
        if int(asked) in vms:
            raise wrong(vmid=f"VM {asked} already exists")
        return asked
    return str(next(vmid for vmid in range(FIRST_ID, 1_000_000) if vmid not in vms))


def resources(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/resources."""
    wanted = call.params.get("type", "")
    if wanted not in {"", "vm", "node", "storage", "sdn"}:
        raise wrong(type=f"value '{wanted}' does not have a value in the enumeration 'vm, storage, node, sdn'")
    site = call.world.site
    vms = [_vm(call, vm) for vm in site.vms.values() if call.token.may(f"/vms/{vm.vmid}", "VM.Audit")]
    hosts = [_host(call, host) for host in site.hosts.values()]
    stores = [_storage(call, host.name, name) for name in site.storages for host in site.hosts.values()]
    shown = {"vm": vms, "node": hosts, "storage": [store for store in stores if store]}
    return shown.get(wanted, []) if wanted else [item for items in shown.values() for item in items]


def _vm(call: Call, vm: Vm) -> dict[str, Any]:
    """Name and status are those of pvestatd's last round if the fault says so; lock and tags are always current."""
    world = call.world
    now = (vm.name, "running" if vm.running else "stopped")
    name, status = vm.listed if world.faults.on("proxmox.resources-stale") else now
    shown: dict[str, Any] = {
        "id": f"qemu/{vm.vmid}",
        "type": "qemu",
        "vmid": vm.vmid,
        "node": vm.host,
        "status": status,
    }
    if status != "unknown":
        shown |= {
            "name": name,
            "template": 0,
            "maxcpu": int(vm.config.get("cores", 1)) * int(vm.config.get("sockets", 1)),
            "maxmem": int(vm.config.get("memory", 512)) * 1024**2,
            "uptime": uptime(world, vm),
            "cpu": 0,
            "mem": 0,
        }
    return shown | {key: vm.config[key] for key in ("lock", "tags") if key in vm.config}


def _host(call: Call, host: Host) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": f"node/{host.name}",
        "type": "node",
        "node": host.name,
        "status": "online" if host.online else "offline",
    }
    if call.token.may(f"/nodes/{host.name}", "Sys.Audit"):
        shown |= {"maxcpu": host.cores, "maxmem": host.memory_gib * GIB, "cpu": 0.02, "mem": 4 * GIB, "level": ""}
    return shown


def _storage(call: Call, host: str, name: str) -> dict[str, Any]:
    if not call.token.may(f"/storage/{name}", "Datastore.Audit"):
        return {}
    storage = call.world.site.storage(name)
    total = storage.size_gib * GIB
    return {
        "id": f"storage/{host}/{name}",
        "type": "storage",
        "storage": name,
        "node": host,
        "status": "available",
        "plugintype": storage.type,
        "content": ",".join(sorted(storage.content)),
        "shared": int(storage.shared),
        "maxdisk": total,
        "disk": total - call.world.site.free(host, name),
    }


def nodes(call: Call) -> list[dict[str, Any]]:
    """GET /nodes."""
    return [_host(call, host) for host in call.world.site.hosts.values()]


def machines(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/qemu: as it is now."""
    host = call.world.site.host(call.node)
    vms = [vm for vm in call.world.site.vms.values() if vm.host == host.name]
    return [
        {"vmid": vm.vmid, "name": vm.name, "status": "running" if vm.running else "stopped"}
        | {key: vm.config[key] for key in ("lock", "tags") if key in vm.config}
        for vm in vms
        if call.token.may(f"/vms/{vm.vmid}", "VM.Audit")
    ]


def network(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/network: bridges that the token may neither see nor use are left out."""
    host = call.world.site.host(call.node)
    bridges = [
        {"iface": name, "type": "bridge", "active": 1, "autostart": 1, "bridge_ports": "eno1", "method": "manual"}
        for name in host.bridges
        if any(call.token.may(f"/sdn/zones/localnetwork/{name}", right) for right in ("SDN.Audit", "SDN.Use"))
    ]
    return [{"iface": "eno1", "type": "eth", "active": 1, "exists": 1, "method": "manual"}, *bridges]


def tasks(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/tasks: one's own, or all with Sys.Audit on the nodes; the last few that ended, newest first."""
    now = call.world.clock.now()
    seen = [task for task in call.world.tasks.all.values() if _may_see(call, task)]
    ended = sorted((task for task in seen if task.exit), key=lambda task: task.ended)[-_KEPT:]
    shown = [task for task in seen if not task.exit] + ended
    return [task.listed(now) for task in sorted(shown, key=lambda task: (task.start, task.pid), reverse=True)]


_KEPT = 25
"""Finished tasks that the cluster's list keeps."""


def _may_see(call: Call, task: Task) -> bool:
    return task.user == call.token.id or call.token.may(f"/nodes/{task.node}", "Sys.Audit")


def task_status(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/tasks/{upid}/status."""
    return _task(call).status()


def task_log(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/tasks/{upid}/log."""
    start, limit = int(call.params.get("start", 0)), int(call.params.get("limit", 50))
    lines = _task(call).log or ["no content"]
    return [{"n": number, "t": text} for number, text in enumerate(lines, 1)][start : start + (limit or len(lines))]


def _task(call: Call) -> Task:
    call.world.site.host(call.node)
    task = call.world.tasks.find(call.path["upid"])
    if not _may_see(call, task):
        call.token.need(f"/nodes/{task.node}", "Sys.Audit")
    return task
