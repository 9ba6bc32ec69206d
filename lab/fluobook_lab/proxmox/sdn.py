"""The SDN: zones, VNets, subnets and WireGuard fabrics, their pending changes, the lock, the reload of each node."""

from __future__ import annotations

import base64
import copy
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fluobook_lab.hosts.keys import public_key
from fluobook_lab.proxmox.model import Tunnel
from fluobook_lab.proxmox.options import TaskError, failed, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fluobook_lab.proxmox.model import Backend, Call, Sdn, Task

_KEYS = {"zones": "zone", "vnets": "vnet", "subnets": "subnet", "controllers": "controller"}
_KEYS |= {"fabrics": "id", "nodes": "node_id", "prefix-lists": "id", "route-maps": "route-map-id"}
"""By kind, the key of an object's id."""
_NUMBERS = frozenset({"mtu", "tag", "vxlan-port", "snat", "vlanaware", "isolate-ports", "persistent_keepalive"})
_LISTS = frozenset({"interfaces", "peers", "allowed_ips"})
_NOT_STORED = frozenset({"lock-token", "delete", "digest", "type", "vnet", "zone", "subnet", "id", "node_id"})
_VXLAN_MTU = 1450
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
    """GET /cluster/sdn/fabrics/all."""
    nodes = [item | {"node_id": item["node_id"].partition("/")[2]} for item in _listing("nodes")(call)]
    return {"fabrics": _listing("fabrics")(call), "nodes": nodes}


def _with_changes(running: dict[str, Any] | None, configured: dict[str, Any] | None) -> dict[str, Any]:
    if running == configured or configured is None:
        return dict(running or {}) | ({} if configured else {"state": "deleted"})
    changes = {key: value for key, value in configured.items() if (running or {}).get(key) != value}
    changes |= dict.fromkeys((running or {}).keys() - configured.keys(), "deleted")
    return (running or configured) | {"state": "changed" if running else "new", "pending": changes}


def _require_unlocked(call: Call) -> None:
    """Refuse a change of a configuration that somebody else has locked."""
    token, sdn = call.params.get("lock-token", ""), call.backend.inventory.sdn
    locked = sdn.lock or ("somebody" if call.backend.faults.on("proxmox.sdn-locked") else "")
    if locked != token:
        raise failed("invalid lock token provided!" if token else "SDN configuration is locked by another lock token")


def _content(call: Call, kind: str) -> dict[str, Any]:
    values = {key: value for key, value in call.params.items() if key not in _NOT_STORED}
    if kind == "zones" and "type" in call.params:
        values["type"] = call.params["type"]
    if kind == "vnets" and "zone" in call.params:
        values["zone"] = call.params["zone"]
    arrays = _LISTS & values.keys() if kind == "nodes" else ()
    lists: dict[str, Any] = {key: values.pop(key).split("\0") for key in arrays}
    return {key: int(value) if key in _NUMBERS else value for key, value in values.items()} | lists


def _creation(kind: str) -> Callable[[Call], None]:
    def create(call: Call) -> None:
        """POST …."""
        _need(call, kind)
        sdn, name = call.backend.inventory.sdn, (call.params | call.path)[_KEYS[kind]]
        content = _content(call, kind)
        if kind == "subnets":
            vnet = call.path["vnet"]
            zone = _existing(call, "vnets", vnet)["zone"]
            content |= {"cidr": name, "vnet": vnet, "zone": zone}
            name = f"{zone}-{name.replace('/', '-')}"
        if kind == "nodes":
            content |= {"fabric_id": call.path["fabric_id"]}
            name = f"{content['fabric_id']}/{name}"
        if name in sdn.configured[kind]:
            raise failed(f"sdn {_KEYS[kind]} object ID '{name}' already defined")
        _store(call, kind, name, content)

    return create


def _need(call: Call, kind: str) -> None:
    """Require the privilege and the lock for a change."""
    call.token.need("/sdn/fabrics" if kind in {"fabrics", "nodes"} else "/sdn/zones", "SDN.Allocate")
    node = (call.params | call.path).get("node_id", "")
    if kind == "nodes" and node in call.backend.inventory.hosts:
        call.token.need(f"/nodes/{node}", "Sys.Modify")
    _require_unlocked(call)


def _store(call: Call, kind: str, name: str, content: dict[str, Any]) -> None:
    _check(call, kind, name, content)
    if kind == "nodes" and content.get("role") == "internal":
        content["interfaces"] = [_with_key(call, name, text) for text in content.get("interfaces", ())]
    call.backend.inventory.sdn.configured[kind][name] = content


def _with_key(call: Call, node: str, text: str) -> str:
    """An interface's properties with the public key; its private key is made when the interface is new."""
    given, keys = parse(text, "name"), call.backend.inventory.sdn.keys
    new = base64.b64encode(call.backend.random.randbytes(32)).decode()
    private = keys.setdefault((node, given["name"]), new)
    return ",".join(f"{key}={value}" for key, value in (given | {"public_key": public_key(private)}).items())


def _existing(call: Call, kind: str, name: str) -> dict[str, Any]:
    objects = call.backend.inventory.sdn.configured[kind]
    if name not in objects:
        raise failed(f"sdn '{name}' does not exist")
    return objects[name]


def _check(call: Call, kind: str, name: str, content: dict[str, Any]) -> None:
    """Refuse what the plugin of a zone refuses."""
    if kind == "nodes":
        _check_node(call, name, content)
    if kind == "zones" and content["type"] == "vxlan" and not (content.get("peers") or content.get("fabric")):
        raise failed("missing peers or fabric in zone")
    if kind == "vnets":
        zone = _existing(call, "zones", content["zone"])
        if zone["type"] == "vxlan" and not content.get("tag"):
            raise failed("missing vxlan tag")
        for other, each in call.backend.inventory.sdn.configured["vnets"].items():
            if other != name and each.get("tag") == content.get("tag") and each["zone"] == content["zone"]:
                raise failed(f"tag {content['tag']} already exist in zone {content['zone']}")


def _check_node(call: Call, name: str, content: dict[str, Any]) -> None:
    """Refuse ports and names that are used twice, and peers that do not exist; that addresses overlap is not seen."""
    configured = call.backend.inventory.sdn.configured
    fabric = content["fabric_id"]
    if fabric not in configured["fabrics"]:
        raise failed(f"fabric '{fabric}' does not exist in configuration")
    if content.get("role") == "external" and not (content.get("public_key") and content.get("endpoint")):
        raise failed(f"missing field `{'endpoint' if content.get('public_key') else 'public_key'}`")
    nodes = configured["nodes"] | {name: content}
    for owner, node in nodes.items():
        same = [each for each in nodes if each.partition("/")[2] == owner.partition("/")[2]]
        interfaces = [each for other in same for each in _parsed(nodes[other], "interfaces")]
        for key, problem in (
            ("name", "interface is already in use by another fabric"),
            ("listen_port", "WireGuard interface listen port duplicated in node configuration: {}"),
        ):
            value, count = Counter(each[key] for each in interfaces).most_common(1)[0] if interfaces else ("", 0)
            if count > 1:
                raise failed(problem.format(value))
        for peer in _parsed(node, "peers"):
            _check_peer(nodes, owner, node, peer)


def _check_peer(nodes: dict[str, Any], owner: str, node: dict[str, Any], peer: dict[str, str]) -> None:
    other = nodes.get(f"{owner.partition('/')[0]}/{peer['node']}", {"role": ""})
    if peer["iface"] not in [each["name"] for each in _parsed(node, "interfaces")]:
        raise failed(f"peer configuration references non-existing local interface '{peer['iface']}'")
    if peer["type"] == "external" and other["role"] != "external":
        raise failed(f"peer configuration references non-existing external node '{peer['node']}'")
    if peer["type"] == "internal" and peer.get("node_iface") not in [
        each["name"] for each in _parsed(other, "interfaces")
    ]:
        raise failed(
            f"peer configuration references non-existing interface '{peer.get('node_iface')}' on node '{peer['node']}'"
        )


def _parsed(node: dict[str, Any], key: str) -> list[dict[str, str]]:
    return [parse(text, "name") for text in node.get(key, ())]


def _change(kind: str) -> Callable[[Call], None]:
    def update(call: Call) -> None:
        """PUT …/{id}."""
        _need(call, kind)
        name = _name(call, kind)
        content = _existing(call, kind, name) | _content(call, kind)
        removed = call.params.get("delete", "").replace("\0", ",").split(",")
        _store(call, kind, name, {key: value for key, value in content.items() if key not in removed})

    return update


def _removal(kind: str) -> Callable[[Call], None]:
    def delete(call: Call) -> None:
        """DELETE …/{id}; what others are in cannot be deleted, but for a fabric, whose nodes go with it."""
        _need(call, kind)
        sdn, name = call.backend.inventory.sdn, _name(call, kind)
        _existing(call, kind, name)
        if kind == "vnets" and any(subnet["vnet"] == name for subnet in sdn.configured["subnets"].values()):
            raise failed("Can't delete vnet if subnets exists")
        if kind == "zones" and any(vnet["zone"] == name for vnet in sdn.configured["vnets"].values()):
            raise failed(f"zone {name} is used by a vnet")
        del sdn.configured[kind][name]
        nodes = sdn.configured["nodes"]
        if kind == "fabrics":
            sdn.configured["nodes"] = {key: node for key, node in nodes.items() if node["fabric_id"] != name}
        for owner, node in nodes.items() if kind == "nodes" else ():
            for peer in _parsed(node, "peers"):
                _check_peer(nodes, owner, node, peer)

    return delete


def _name(call: Call, kind: str) -> str:
    """The id of the object in the path."""
    return "/".join(call.path[key] for key in (("fabric_id", "node_id") if kind == "nodes" else (_KEYS[kind],)))


def lock(call: Call) -> str:
    """POST /cluster/sdn/lock."""
    call.token.need("/sdn", "SDN.Allocate")
    _require_unlocked(call)
    sdn = call.backend.inventory.sdn
    if sdn.configured != sdn.running and call.params.get("allow-pending") != "1":
        raise failed("configuration has pending changes")
    sdn.lock = f"{call.backend.random.getrandbits(64):016x}"
    return sdn.lock


def unlock(call: Call) -> None:
    """DELETE /cluster/sdn/lock."""
    if call.params.get("force") != "1":
        _require_unlocked(call)
    call.backend.inventory.sdn.lock = ""


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
        backend.tunnels(name, _tunnels(sdn, name))

    return reload


def _tunnels(sdn: Sdn, host: str) -> dict[str, Tunnel]:
    """The WireGuard interfaces of a host from what was applied, as Proxmox VE writes them."""
    return {
        interface["name"]: Tunnel(interface["ip"], "\n".join(_tunnel(sdn, name, interface)) + "\n")
        for name, node in sdn.running["nodes"].items()
        if name.partition("/")[2] == host and node.get("role") == "internal"
        for interface in _parsed(node, "interfaces")
    }


def _tunnel(sdn: Sdn, name: str, interface: dict[str, str]) -> Iterator[str]:
    nodes, fabric = sdn.running["nodes"], name.partition("/")[0]
    yield f"[Interface]\nPrivateKey = {sdn.keys[name, interface['name']]}\nListenPort = {interface['listen_port']}"
    for peer in _parsed(nodes[name], "peers"):
        other = nodes[f"{fabric}/{peer['node']}"]
        allowed, endpoint, key = list(other.get("allowed_ips", ())), other.get("endpoint"), other.get("public_key")
        if other["role"] == "internal":
            remote = next(each for each in _parsed(other, "interfaces") if each["name"] == peer["node_iface"])
            allowed.insert(0, f"{remote['ip'].partition('/')[0]}/32")
            endpoint, key = endpoint and f"{endpoint}:{remote['listen_port']}", remote["public_key"]
        yield f"\n[Peer]\nPublicKey = {key}\nAllowedIPs = {', '.join(allowed)}"
        yield from [f"Endpoint = {endpoint}"] if endpoint else []


def dry_run(call: Call) -> dict[str, str]:
    """GET /cluster/sdn/dry-run: the interfaces that applying makes on a node; a VXLAN zone has MTU 1450 by default."""
    call.token.need(f"/nodes/{call.params['node']}", "Sys.Audit")
    configured, lines = call.backend.inventory.sdn.configured, []
    for name, vnet in configured["vnets"].items():
        zone = configured["zones"][vnet["zone"]]
        mtu = zone.get("mtu", _VXLAN_MTU if zone["type"] == "vxlan" else None)
        lines += [f"+auto {name}", f"+iface {name}"] + ([f"+\tmtu {mtu}"] if mtu else [])
    return {"interfaces-diff": "\n".join(lines)}


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


def _handshakes(call: Call) -> dict[str, Mapping[str, int] | None]:
    """By interface of a fabric on a node, the time of the last handshake with each peer; None if it is down."""
    call.token.need(f"/sdn/fabrics/{call.path['fabric']}", "SDN.Audit")
    node = call.backend.inventory.sdn.running["nodes"].get(f"{call.path['fabric']}/{call.node}", {})
    names = [interface["name"] for interface in _parsed(node, "interfaces")]
    return {name: call.backend.handshakes(call.node, name) for name in names}


def fabric_interfaces(call: Call) -> list[dict[str, str]]:
    """GET /nodes/{node}/sdn/fabrics/{fabric}/interfaces."""
    states = {name: "down" if peers is None else "up" for name, peers in _handshakes(call).items()}
    return [{"name": name, "state": state, "type": "wireguard"} for name, state in states.items()]


def fabric_neighbors(call: Call) -> list[dict[str, str]]:
    """GET /nodes/{node}/sdn/fabrics/{fabric}/neighbors; their form for WireGuard is not in the API's description."""
    peers = {key: time for peers in _handshakes(call).values() for key, time in (peers or {}).items()}
    return [{"neighbor": key, "status": "up" if time else "down", "uptime": ""} for key, time in peers.items()]


def _routes() -> list[tuple[str, str, Callable[[Call], Any]]]:
    routes: list[tuple[str, str, Callable[[Call], Any]]] = []
    for kind, path in _PATHS.items():
        object_path = f"{path}/{{{_KEYS[kind]}}}"
        routes += [
            ("POST", path, _creation(kind)),
            ("PUT", object_path, _change(kind)),
            ("DELETE", object_path, _removal(kind)),
        ]
    for kind in ("zones", "vnets", "subnets", "controllers", "prefix-lists", "route-maps"):
        routes.append(("GET", (_PATHS | _LISTED).get(kind, f"/cluster/sdn/{kind}"), _listing(kind)))
    return routes


_PATHS = {
    "zones": "/cluster/sdn/zones",
    "vnets": "/cluster/sdn/vnets",
    "subnets": "/cluster/sdn/vnets/{vnet}/subnets",
    "fabrics": "/cluster/sdn/fabrics/fabric",
    "nodes": "/cluster/sdn/fabrics/node/{fabric_id}",
}
"""By kind, where objects are created."""
_LISTED = {"route-maps": "/cluster/sdn/route-maps/entries"}
"""By kind, where objects are listed that cannot be created here."""
ROUTES = (
    *_routes(),
    ("GET", "/cluster/sdn/fabrics/all", fabrics),
    ("GET", "/cluster/sdn/dry-run", dry_run),
    ("PUT", "/cluster/sdn", apply),
    ("POST", "/cluster/sdn/lock", lock),
    ("DELETE", "/cluster/sdn/lock", unlock),
    ("GET", "/nodes/{node}/sdn/zones", zone_status),
    ("GET", "/nodes/{node}/sdn/fabrics/{fabric}/interfaces", fabric_interfaces),
    ("GET", "/nodes/{node}/sdn/fabrics/{fabric}/neighbors", fabric_neighbors),
)
