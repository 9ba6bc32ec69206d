"""Requests about the whole cluster: version, permissions, resources, networks, tasks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fluobook_lab.proxmox.model import GIB
from fluobook_lab.proxmox.options import failed, invalid
from fluobook_lab.proxmox.power import uptime

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fluobook_lab.proxmox.model import Call, Host, Task, Vm

_KEPT = 25
"""Finished tasks in GET /cluster/tasks."""


def version(call: Call) -> dict[str, str]:
    """GET /version."""
    text = call.backend.inventory.version
    return {"version": text, "release": ".".join(text.split(".")[:2]), "repoid": "lab"}


def permissions(call: Call) -> dict[str, dict[str, int]]:
    """GET /access/permissions."""
    return call.token.permissions(call.params.get("path"))


def tokens(call: Call) -> list[dict[str, Any]]:
    """GET /access/users/{userid}/token: none of them expires."""
    call.token.need("/access/groups", "User.Modify")
    names = (each.rpartition("!") for each in call.backend.inventory.tokens)
    return [{"tokenid": name, "expire": 0, "privsep": 1} for user, _, name in names if user == call.path["userid"]]


def remove_token(call: Call) -> None:
    """DELETE /access/users/{userid}/token/{tokenid}."""
    call.token.need("/access/groups", "User.Modify")
    user, name = call.path["userid"], call.path["tokenid"]
    if call.backend.inventory.tokens.pop(f"{user}!{name}", None) is None:
        raise failed(f"no such token '{name}' for user '{user}'")


def next_id(call: Call) -> str:
    """GET /cluster/nextid."""
    vms = call.backend.inventory.vms
    if requested := call.params.get("vmid"):
        if int(requested) in vms:
            raise invalid(vmid=f"VM {requested} already exists")
        return requested
    return str(next(vmid for vmid in range(100, 1_000_000) if vmid not in vms))


def resources(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/resources."""
    kind = call.params.get("type", "")
    if kind not in {"", "vm", "node", "storage", "sdn"}:
        raise invalid(type=f"value '{kind}' does not have a value in the enumeration 'vm, storage, node, sdn'")
    inventory, token = call.backend.inventory, call.token
    by_kind = {
        "vm": [_vm(call, vm) for vm in inventory.vms.values() if token.may(f"/vms/{vm.vmid}", "VM.Audit")],
        "node": nodes(call),
        "storage": [
            _storage(call, host, name)
            for name in inventory.storages
            for host in inventory.hosts
            if token.may(f"/storage/{name}", "Datastore.Audit")
        ],
    }
    return by_kind.get(kind, []) if kind else [item for items in by_kind.values() for item in items]


def _vm(call: Call, vm: Vm) -> dict[str, Any]:
    """A VM's item; with the fault, name and status are as old as pvestatd's last refresh, lock and tags are current."""
    stale = call.backend.faults.on("proxmox.resources-stale")
    name, status = vm.listed if stale else (vm.name, vm.status)
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
            "maxcpu": vm.cores,
            "maxmem": vm.memory_mib * 1024**2,
            "uptime": uptime(call.backend, vm),
            "cpu": 0,
            "mem": 0,
        }
    shown |= {"pool": vm.pool} if vm.pool else {}
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
    storage = call.backend.inventory.storage(name)
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
        "disk": total - call.backend.inventory.free(host, name),
    }


def nodes(call: Call) -> list[dict[str, Any]]:
    """GET /nodes."""
    return [_host(call, host) for host in call.backend.inventory.hosts.values()]


def host_status(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/status."""
    call.token.need(f"/nodes/{call.node}", "Sys.Audit")
    host = call.backend.inventory.host(call.node)
    cpu = {"cpus": host.cores, "cores": host.cores, "sockets": 1, "flags": " ".join(sorted(host.cpu_features))}
    memory = {"total": host.memory_gib * GIB, "used": 4 * GIB, "free": (host.memory_gib - 4) * GIB}
    return {"cpuinfo": cpu, "memory": memory, "pveversion": f"pve-manager/{call.backend.inventory.version}"}


def vms(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/qemu: always current."""
    host = call.backend.inventory.host(call.node)
    return [
        {"vmid": vm.vmid, "name": vm.name, "status": vm.status}
        | {key: vm.config[key] for key in ("lock", "tags") if key in vm.config}
        for vm in call.backend.inventory.vms.values()
        if vm.host == host.name and call.token.may(f"/vms/{vm.vmid}", "VM.Audit")
    ]


def network(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/network: without the bridges that the token may neither audit nor use."""
    host = call.backend.inventory.host(call.node)
    bridges = [
        {"iface": name, "type": "bridge", "active": 1, "autostart": 1, "bridge_ports": "eno1", "method": "manual"}
        for name in host.bridges
        if name not in call.backend.inventory.sdn.running["vnets"]
        and any(call.token.may(f"/sdn/zones/localnetwork/{name}", each) for each in ("SDN.Audit", "SDN.Use"))
    ]
    return [{"iface": "eno1", "type": "eth", "active": 1, "exists": 1, "method": "manual"}, *bridges]


def firewall_rules(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/firewall/rules."""
    call.token.need(f"/nodes/{call.node}", "Sys.Audit")
    return [{"pos": pos, **rule} for pos, rule in enumerate(_firewall(call))]


def create_firewall_rule(call: Call) -> None:
    """POST /nodes/{node}/firewall/rules: a new rule comes first, and is disabled unless `enable` is given."""
    call.token.need(f"/nodes/{call.node}", "Sys.Modify")
    rule = call.params
    if rule["type"] in ("in", "out") and rule["action"] not in ("ACCEPT", "DROP", "REJECT"):
        raise invalid(action=f"unknown action '{rule['action']}'")
    for port in ("dport", "sport"):
        if port in rule and "proto" not in rule:
            raise invalid(proto=f"missing property - '{port}' requires this property")
    _firewall(call).insert(0, {"enable": 0} | {name: _number(value) for name, value in call.params.items()})


def delete_firewall_rule(call: Call) -> None:
    """DELETE /nodes/{node}/firewall/rules/{pos}."""
    call.token.need(f"/nodes/{call.node}", "Sys.Modify")
    rules, pos = _firewall(call), int(call.path["pos"])
    if pos >= len(rules):
        raise failed(f"no rule at position {pos}")
    del rules[pos]


def _firewall(call: Call) -> list[dict[str, Any]]:
    return call.backend.inventory.firewall[call.backend.inventory.host(call.node).name]


def _number(value: str) -> str | int:
    return int(value) if value in {"0", "1"} else value


def tasks(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/tasks: the token's own tasks, with Sys.Audit all; running ones and the last finished ones."""
    now = call.backend.clock.now()
    visible = [task for task in call.backend.tasks.all.values() if _may_see(call, task)]
    finished = sorted((task for task in visible if task.exit), key=lambda task: task.ended)[-_KEPT:]
    listed = [task for task in visible if not task.exit] + finished
    return [task.listed(now) for task in _last_first(listed)]


def node_tasks(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/tasks: the finished ones unless `source` says otherwise, the last first."""
    call.backend.inventory.host(call.node)
    of_node = [task for task in call.backend.tasks.all.values() if task.node == call.node and _may_see(call, task)]
    listed = _last_first(task for task in of_node if _is_listed(call.params, task))
    start, limit = int(call.params.get("start", 0)), int(call.params.get("limit", 50))
    now = call.backend.clock.now()
    return [task.listed(now) | task.owner() for task in listed[start : start + limit]]


def _last_first(listed: Iterable[Task]) -> list[Task]:
    return sorted(listed, key=lambda task: (task.start, task.pid), reverse=True)


def _is_listed(wanted: Mapping[str, str], task: Task) -> bool:
    """Whether a task passes the filters of a request."""
    source, statuses = wanted.get("source", "archive"), re.findall(r"\w+", wanted.get("statusfilter", "").lower())
    state = "ok" if task.exit == "OK" else "error" if task.exit else "unknown"
    return (
        source in ("all", "archive" if task.exit else "active")
        and (wanted.get("errors", "0") == "0" or state != "ok")
        and (not statuses or state in statuses)
        and wanted.get("typefilter", task.type) == task.type
        and wanted.get("vmid", task.id) == task.id
        and wanted.get("userfilter", "").lower() in task.user.lower()
        and int(wanted.get("since", task.start)) <= task.start <= int(wanted.get("until", task.start))
    )


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
    call.backend.inventory.host(call.node)
    task = call.backend.tasks.find(call.path["upid"])
    if not _may_see(call, task):
        call.token.need(f"/nodes/{task.node}", "Sys.Audit")
    return task
