"""The SDN: zones, VNets and subnets with their pending changes, the lock, and the reload of each node."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fluobook_lab.proxmox.options import PveError, TaskError, failed, invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluobook_lab.proxmox.model import Backend, Call, Task

_KEYS = {"zones": "zone", "vnets": "vnet", "subnets": "subnet", "controllers": "controller", "fabrics": "id"}
"""By kind, the key of an object's id."""
_NUMBERS = frozenset({"mtu", "tag", "vxlan-port", "snat", "vlanaware", "isolate-ports"})
_NOT_STORED = frozenset({"lock-token", "delete", "digest", "type", "vnet", "zone", "subnet"})
_RELOAD, _RELOADS = "srvreload", "reloadnetworkall"


def _listing(kind: str) -> Callable[[Call], list[dict[str, Any]]]:
    def index(call: Call) -> list[dict[str, Any]]:
        """GET …: with `pending`, what is configured and what of it is not applied; else what is configured."""
        sdn, key = call.backend.inventory.sdn, _KEYS[kind]
        configured, running = sdn.configured[kind], sdn.running[kind]
        names = configured if call.params.get("pending") != "1" else dict.fromkeys([*running, *configured])
        shown = [
            {key: name, "type": kind[:-1]} | _with_changes(running.get(name), configured.get(name)) for name in names
        ]
        return [item for item in shown if kind != "subnets" or item["vnet"] == call.path["vnet"]]

    return index


def fabrics(call: Call) -> dict[str, list[dict[str, Any]]]:
    """GET /cluster/sdn/fabrics/all; Proxmox VE 8 has no fabrics."""
    _since_9(call)
    return {"fabrics": _listing("fabrics")(call), "nodes": []}


def _with_changes(running: dict[str, Any] | None, configured: dict[str, Any] | None) -> dict[str, Any]:
    if running == configured or configured is None:
        return dict(running or {}) | ({} if configured else {"state": "deleted"})
    changes = {key: value for key, value in configured.items() if (running or {}).get(key) != value}
    return (running or configured) | {"state": "changed" if running else "new", "pending": changes}


def _require_unlocked(call: Call) -> None:
    """Refuse a change of a configuration that somebody else has locked."""
    token, sdn = call.params.get("lock-token", ""), call.backend.inventory.sdn
    if token and call.backend.inventory.version.startswith("8."):
        raise invalid(**{"lock-token": "property is not defined in schema and the schema does not allow it"})
    locked = sdn.lock or ("somebody" if call.backend.faults.on("proxmox.sdn-locked") else "")
    if locked != token:
        raise failed("invalid lock token provided!" if token else "SDN configuration is locked by another lock token")


def _content(call: Call, kind: str) -> dict[str, Any]:
    values = {key: value for key, value in call.params.items() if key not in _NOT_STORED}
    if kind == "zones" and "type" in call.params:
        values["type"] = call.params["type"]
    if kind == "vnets" and "zone" in call.params:
        values["zone"] = call.params["zone"]
    return {key: int(value) if key in _NUMBERS else value for key, value in values.items()}


def _creation(kind: str) -> Callable[[Call], None]:
    def create(call: Call) -> None:
        """POST …."""
        call.token.need("/sdn/zones", "SDN.Allocate")
        _require_unlocked(call)
        sdn, name = call.backend.inventory.sdn, call.params[_KEYS[kind]]
        content = _content(call, kind)
        if kind == "subnets":
            vnet = call.path["vnet"]
            zone = _existing(call, "vnets", vnet)["zone"]
            content |= {"cidr": name, "vnet": vnet, "zone": zone}
            name = f"{zone}-{name.replace('/', '-')}"
        if name in sdn.configured[kind]:
            raise failed(f"sdn {_KEYS[kind]} object ID '{name}' already defined")
        _check(call, kind, name, content)
        sdn.configured[kind][name] = content

    return create


def _existing(call: Call, kind: str, name: str) -> dict[str, Any]:
    objects = call.backend.inventory.sdn.configured[kind]
    if name not in objects:
        raise failed(f"sdn '{name}' does not exist")
    return objects[name]


def _check(call: Call, kind: str, name: str, content: dict[str, Any]) -> None:
    """Refuse what the plugin of a zone refuses."""
    if kind == "zones" and content["type"] == "vxlan" and not (content.get("peers") or content.get("fabric")):
        raise failed("missing peers or fabric in zone")
    if kind == "vnets":
        zone = _existing(call, "zones", content["zone"])
        if zone["type"] == "vxlan" and not content.get("tag"):
            raise failed("missing vxlan tag")
        for other, each in call.backend.inventory.sdn.configured["vnets"].items():
            if other != name and each.get("tag") == content.get("tag") and each["zone"] == content["zone"]:
                raise failed(f"tag {content['tag']} already exist in zone {content['zone']}")


def _change(kind: str) -> Callable[[Call], None]:
    def update(call: Call) -> None:
        """PUT …/{id}."""
        call.token.need("/sdn/zones", "SDN.Allocate")
        _require_unlocked(call)
        name = call.path[_KEYS[kind]]
        content = _existing(call, kind, name) | _content(call, kind)
        _check(call, kind, name, content)
        removed = call.params.get("delete", "").split(",")
        kept = {key: value for key, value in content.items() if key not in removed}
        call.backend.inventory.sdn.configured[kind][name] = kept

    return update


def _removal(kind: str) -> Callable[[Call], None]:
    def delete(call: Call) -> None:
        """DELETE …/{id}; what others are in cannot be deleted."""
        call.token.need("/sdn/zones", "SDN.Allocate")
        _require_unlocked(call)
        sdn, name = call.backend.inventory.sdn, call.path[_KEYS[kind]]
        _existing(call, kind, name)
        if kind == "vnets" and any(subnet["vnet"] == name for subnet in sdn.configured["subnets"].values()):
            raise failed("Can't delete vnet if subnets exists")
        if kind == "zones" and any(vnet["zone"] == name for vnet in sdn.configured["vnets"].values()):
            raise failed(f"zone {name} is used by a vnet")
        del sdn.configured[kind][name]

    return delete


def lock(call: Call) -> str:
    """POST /cluster/sdn/lock."""
    _since_9(call)
    call.token.need("/sdn", "SDN.Allocate")
    _require_unlocked(call)
    sdn = call.backend.inventory.sdn
    if sdn.configured != sdn.running and call.params.get("allow-pending") != "1":
        raise failed("configuration has pending changes")
    sdn.lock = f"{call.backend.random.getrandbits(64):016x}"
    return sdn.lock


def unlock(call: Call) -> None:
    """DELETE /cluster/sdn/lock."""
    _since_9(call)
    if call.params.get("force") != "1":
        _require_unlocked(call)
    call.backend.inventory.sdn.lock = ""


def _since_9(call: Call) -> None:
    if call.backend.inventory.version.startswith("8."):
        raise PveError(501, "Method not implemented")


def apply(call: Call) -> str:
    """PUT /cluster/sdn: all pending changes go live; a node that fails is a mere warning in the log."""
    call.token.need("/sdn", "SDN.Allocate")
    _require_unlocked(call)
    backend, token = call.backend, call.token.id
    sdn, tasks = backend.inventory.sdn, backend.tasks
    sdn.running, sdn.lock = copy.deepcopy(sdn.configured), ""
    hosts = list(backend.inventory.hosts)

    async def work(task: Task) -> None:
        upids = [tasks.fork(name, _RELOAD, "networking", token, _reloading(backend, name)) for name in hosts]
        while not all(tasks.find(upid).exit for upid in upids):
            await backend.clock.sleep(0.5)
        for upid in upids:
            if (ended := tasks.find(upid)).exit != "OK":
                task.log.append(f"WARN: reloading network config on node '{ended.node}' failed: {ended.exit}")

    return tasks.fork(hosts[0], _RELOADS, "", token, work)


def _reloading(backend: Backend, name: str) -> Callable[[Task], Any]:
    async def reload(_: Task) -> None:
        inventory = backend.inventory
        sdn, host = inventory.sdn, inventory.host(name)
        await backend.clock.sleep(backend.durations.reload)
        if name == next(iter(inventory.hosts)) and backend.faults.on("proxmox.network-reload-fails"):
            sdn.failed.add(name)
            raise TaskError("command 'ifreload -a' failed: exit code 1")
        sdn.failed.discard(name)
        vnets = [
            vnet
            for vnet, content in sdn.running["vnets"].items()
            if _is_on(sdn.running["zones"][content["zone"]], name)
        ]
        inventory.hosts[name] = replace(host, bridges=(host.bridges[0], *vnets))

    return reload


def _is_on(zone: dict[str, Any], node: str) -> bool:
    return "nodes" not in zone or node in zone["nodes"].split(",")


def zone_status(call: Call) -> list[dict[str, str]]:
    """GET /nodes/{node}/sdn/zones."""
    sdn, node = call.backend.inventory.sdn, call.backend.inventory.host(call.node).name
    zones = {
        name: zone for name, zone in (sdn.configured["zones"] | sdn.running["zones"]).items() if _is_on(zone, node)
    }
    state = "error" if node in sdn.failed else "available"
    return [{"zone": name, "status": state if name in sdn.running["zones"] else "pending"} for name in zones]


def _routes() -> list[tuple[str, str, Callable[[Call], Any]]]:
    routes: list[tuple[str, str, Callable[[Call], Any]]] = []
    for kind, key in _KEYS.items():
        if kind == "fabrics":
            continue
        path = f"/cluster/sdn/{kind}" if kind != "subnets" else "/cluster/sdn/vnets/{vnet}/subnets"
        routes.append(("GET", path, _listing(kind)))
        if kind != "controllers":
            one = f"{path}/{{{key}}}"
            routes += [("POST", path, _creation(kind)), ("PUT", one, _change(kind)), ("DELETE", one, _removal(kind))]
    return routes


ROUTES = (
    *_routes(),
    ("GET", "/cluster/sdn/fabrics/all", fabrics),
    ("PUT", "/cluster/sdn", apply),
    ("POST", "/cluster/sdn/lock", lock),
    ("DELETE", "/cluster/sdn/lock", unlock),
    ("GET", "/nodes/{node}/sdn/zones", zone_status),
)
