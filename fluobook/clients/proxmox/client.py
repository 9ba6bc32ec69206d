"""Proxmox VE as the stages use it: hosts, storages, VMs and their tasks, and the waits for these.

A call that may be made twice is repeated while its error is transient. Creating a VM is never repeated here: after a
lost answer, only what exists can show whether it was created (`task_of`, `config`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fluobook.clients.https import is_passing
from fluobook.clients.proxmox.privileges import Need
from fluobook.clients.proxmox.session import ProxmoxEndpoint, Session, VmLocked, task_failure
from fluobook.clients.proxmox.tasks import LOG_TAIL, UPID, Pace, TaskStatus, Upid, poll_interval
from fluobook.errors import DeadlineExceeded, FluobookError, NotFound, OutsideError, Rejected
from fluobook.waiting import Cancellation, wait_until

Json = dict[str, Any]

UNKNOWN_FOR = 5.0
"""Seconds for which Proxmox VE may not know a task that it has just started."""
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_VOLUMES = [{"volid": str, "content?": str, "size?": _NUMBER, "vmid?": _NUMBER}]
_NETWORKS = [{"iface": str, "type?": str}]
_TOKENS = [{"tokenid": str, "expire?": _NUMBER}]
_NODES = [{"node": str, "status?": str}]
_TASKS = [{"upid": UPID, "endtime?": _NUMBER, "status?": str}]
_RESOURCES = [
    {"type": str, "node?": str, "name?": str, "status?": str, "tags?": str, "lock?": str, "vmid?": _NUMBER}
    | dict.fromkeys(("maxcpu?", "maxmem?", "maxdisk?"), _NUMBER)
]
_STORAGES = [
    {"storage": str, "content?": str}
    | dict.fromkeys(("active?", "enabled?", "shared?", "avail?", "total?", "used?"), _NUMBER)
]
"""The types of what is read."""
_SDN = {"zones": "zone", "vnets": "vnet", "controllers": "controller"}
"""The kinds of SDN objects that lists have, and the key of their id."""
_STATE: dict[str, Any] = {"state?": str, "pending?": dict}
_SDN_VERBS = {"POST": "create", "PUT": "change", "DELETE": "delete"}
_AUDIT = (Need("/vms", "VM.Audit"),)
_ALLOCATE = (Need("/vms", "VM.Allocate"),)
_POWER = (Need("/vms", "VM.PowerMgmt"),)


class ProxmoxClient:
    """A Proxmox VE endpoint. Blocking and thread-safe.

    Every method raises the errors that `session.refusal` names.

    Args:
        endpoint: where it is, and the token.
        deadline: seconds for a call.
    """

    def __init__(self, endpoint: ProxmoxEndpoint, *, deadline: float | None = None) -> None:
        self.endpoint = endpoint
        self._session = Session(endpoint, deadline)
        self._pace = Pace()
        self.close = self._session.close

    def version(self) -> Json:
        """`{version: "9.0.10", release: "9.0", …}`."""
        return self._session.get("version", doing="read the version", shape={"version": re.compile(r"\d+(\.\d+)*\S*")})

    def permissions(self) -> dict[str, dict[str, int]]:
        """The token's privileges: path → privilege → whether it propagates."""
        return self._session.get(
            "access/permissions", doing="read the token's permissions", shape={"*": {"*": _NUMBER}}
        )

    def tokens(self, user: str) -> list[Json]:
        """The API tokens of a user (user@realm): `tokenid`, the name after the "!", and `expire`, 0 for never.

        Raises:
            AccessDenied: the present token may not modify users.
        """
        needs = (Need("/access/groups", "User.Modify"),)
        return self._session.get(
            f"access/users/{user}/token", doing=f"list the tokens of {user}", needs=needs, shape=_TOKENS
        )

    def revoke_token(self, user: str, name: str) -> None:
        """Delete an API token of a user; whoever uses it is refused from then on.

        Raises:
            AccessDenied: the present token may not modify users.
        """
        needs = (Need("/access/groups", "User.Modify"),)
        self._session.call(
            "DELETE", f"access/users/{user}/token/{name}", doing=f"revoke the token {user}!{name}", needs=needs
        )

    def resources(self, type_: str | None = None) -> list[Json]:
        """Everything in the cluster, or only `vm`, `node` or `storage`.

        Status and name of a VM are refreshed every 10 s only, `lock` and `tags` at once; `vm_status` is current.
        """
        doing = "list the resources"
        resources = self._session.get("cluster/resources", doing=doing, shape=_RESOURCES, type=type_)
        incomplete = [r for r in resources if r["type"] in ("qemu", "lxc", "node") and "node" not in r]
        incomplete += [r for r in resources if r["type"] in ("qemu", "lxc") and "vmid" not in r]
        if incomplete:
            raise self._session.unexpected(f"a {incomplete[0]['type']} has no node or no vmid", doing)
        return resources

    def nodes(self) -> list[Json]:
        """The hosts, with `node` and `status` (online, offline, unknown)."""
        return self._session.get("nodes", doing="list the nodes", shape=_NODES)

    def networks(self, node: str) -> list[Json]:
        """A host's network interfaces (`iface`, `type`); bridges without SDN.Audit or SDN.Use are left out."""
        return self._session.get(f"nodes/{node}/network", doing=f"list the networks of {node}", shape=_NETWORKS)

    def cpu_features(self, node: str) -> frozenset[str]:
        """The features of a host's CPU as in /proc/cpuinfo; empty if it does not report them."""
        doing, shape = f"read the status of {node}", {"cpuinfo?": {"flags?": str}}
        needs = (Need(f"/nodes/{node}", "Sys.Audit"),)
        status = self._session.get(f"nodes/{node}/status", doing=doing, shape=shape, needs=needs)
        return frozenset(((status.get("cpuinfo") or {}).get("flags") or "").split())

    def storages(self, node: str) -> list[Json]:
        """A host's storages: `storage`, `content` (comma-separated), `active`, `total` and `avail` in bytes."""
        return self._session.get(f"nodes/{node}/storage", doing=f"list the storages of {node}", shape=_STORAGES)

    def storage_content(self, node: str, storage: str, content: str | None = None) -> list[Json]:
        """The volumes on a storage: `volid`, `content`, `format`, `size` in bytes, `vmid`."""
        path = f"nodes/{node}/storage/{storage}/content"
        needs = (Need(f"/storage/{storage}", "Datastore.Audit"),)
        doing = f"list {storage} on {node}"
        return self._session.get(path, doing=doing, shape=_VOLUMES, needs=needs, content=content)

    def sdn(self) -> dict[str, dict[str, Json]]:
        """The objects of the SDN by kind and id, with their pending changes (`state`, `pending`).

        A fabric's node has the id fabric/node. Proxmox VE 8 has no fabrics.
        """
        objects = {kind: self._sdn_list(f"cluster/sdn/{kind}", key) for kind, key in _SDN.items()}
        subnets = [self._sdn_list(f"cluster/sdn/vnets/{vnet}/subnets", "subnet") for vnet in objects["vnets"]]
        listed = {name: subnet for listed in subnets for name, subnet in listed.items()}
        return {**objects, "subnets": listed, **self._fabrics(), **self._routing()}

    def _fabrics(self) -> dict[str, dict[str, Json]]:
        shape = {"fabrics?": [{"id": str} | _STATE], "nodes?": [{"fabric_id": str, "node_id": str} | _STATE]}
        data = self._if_known("cluster/sdn/fabrics/all", shape, pending=1) or {}
        nodes = {f"{node['fabric_id']}/{node['node_id']}": node for node in data.get("nodes") or ()}
        return {"fabrics": {fabric["id"]: fabric for fabric in data.get("fabrics") or ()}, "nodes": nodes}

    def _routing(self) -> dict[str, dict[str, Json]]:
        """Prefix lists and the entries of route maps, which nobody but their author needs to read."""
        lists = self._if_known("cluster/sdn/prefix-lists", [{"id?": str} | _STATE], pending=1) or ()
        entries = self._if_known("cluster/sdn/route-maps/entries", [{"route-map-id?": str} | _STATE], pending=1) or ()
        maps = {f"{entry.get('route-map-id')}/{entry.get('order')}": entry for entry in entries}
        return {"prefix-lists": {str(item.get("id")): item for item in lists}, "route-maps": maps}

    def _if_known(self, path: str, shape: Any, **options: Any) -> Any:
        """The answer to a request that older versions do not have; None from these."""
        try:
            return self._session.get(path, doing=f"list {path}", shape=shape, **options)
        except Rejected as error:
            if error.code != "501":
                raise
            return None

    def _sdn_list(self, path: str, key: str) -> dict[str, Json]:
        shape = [{key: str} | _STATE]
        listed = self._session.get(path, doing=f"list {path}", shape=shape, pending=1)
        return {item[key]: item for item in listed}

    def create_sdn(self, kind: str, name: str, content: Mapping[str, Any], *, vnet: str) -> None:
        """Create a zone, a VNet, a subnet of a VNet, a fabric or its node; it stays pending until `apply_sdn`."""
        own = {_SDN.get(kind, "id"): name}
        if kind == "subnets":
            own = {"subnet": "/".join(name.partition("-")[2].rsplit("-", 1)), "type": "subnet"}
        elif kind == "nodes":
            own = {"node_id": name.partition("/")[2]}
        self._change_sdn(
            "POST", kind, name, vnet, {**own, **content}, path=_sdn_path(kind, name, vnet).rpartition("/")[0]
        )

    def change_sdn(self, kind: str, name: str, content: Mapping[str, Any], *, vnet: str) -> None:
        """Change an object of the SDN; it stays pending until `apply_sdn`."""
        self._change_sdn("PUT", kind, name, vnet, content)

    def delete_sdn(self, kind: str, name: str, *, vnet: str) -> None:
        """Delete an object of the SDN; it stays pending until `apply_sdn`."""
        self._change_sdn("DELETE", kind, name, vnet, {})

    def _change_sdn(
        self, method: str, kind: str, name: str, vnet: str, content: Mapping[str, Any], *, path: str = ""
    ) -> None:
        parent = "/sdn/fabrics" if kind in ("fabrics", "nodes") else "/sdn/zones"
        doing, needs = f"{_SDN_VERBS[method]} {name} in the SDN", (Need(parent, "SDN.Allocate"),)
        self._session.call(method, path or _sdn_path(kind, name, vnet), doing=doing, needs=needs, **content)

    def apply_sdn(self) -> Upid:
        """Apply all pending changes: every node reloads its network, in a task of its own."""
        return self._task("PUT", "cluster/sdn", "apply the SDN", (Need("/sdn", "SDN.Allocate"),))

    def zone_status(self, node: str) -> dict[str, str]:
        """The status of each zone on a node: available, pending or error."""
        doing, shape = f"read the zones of {node}", [{"zone": str, "status": str}]
        zones = self._session.get(f"nodes/{node}/sdn/zones", doing=doing, shape=shape)
        return {zone["zone"]: zone["status"] for zone in zones}

    def fabric_status(self, node: str, fabric: str) -> tuple[dict[str, str], dict[str, str]]:
        """What a node reports of a fabric: the state of each interface and of each neighbour; empty if nothing."""
        path, shape = f"nodes/{node}/sdn/fabrics/{fabric}", [{"name": str, "state": str}]
        interfaces = self._if_known(f"{path}/interfaces", shape) or ()
        neighbors = self._if_known(f"{path}/neighbors", [{"neighbor": str, "status": str, "uptime?": str}]) or ()
        states = {each["neighbor"]: f"{each['status']} {each.get('uptime') or ''}".strip() for each in neighbors}
        return {interface["name"]: interface["state"] for interface in interfaces}, states

    def firewall_rules(self, node: str) -> list[Json]:
        """The rules of a host's firewall, the first to match first, each with its position (`pos`)."""
        doing, shape = f"list the firewall rules of {node}", [{"pos": _NUMBER, "comment?": str}]
        needs = (Need(f"/nodes/{node}", "Sys.Audit"),)
        return self._session.get(f"nodes/{node}/firewall/rules", doing=doing, shape=shape, needs=needs)

    def add_firewall_rule(self, node: str, rule: Mapping[str, Any]) -> None:
        """Add a rule to a host's firewall, before all others."""
        doing, needs = f"add a firewall rule on {node}", (Need(f"/nodes/{node}", "Sys.Modify"),)
        self._session.call("POST", f"nodes/{node}/firewall/rules", doing=doing, needs=needs, **rule)

    def delete_firewall_rule(self, node: str, pos: int) -> None:
        """Delete the rule at a position of a host's firewall."""
        doing, needs = f"delete firewall rule {pos} on {node}", (Need(f"/nodes/{node}", "Sys.Modify"),)
        self._session.call("DELETE", f"nodes/{node}/firewall/rules/{pos}", doing=doing, needs=needs)

    def cluster_tasks(self) -> list[TaskStatus]:
        """The recent tasks of the whole cluster, as far as the token may see them, newest first."""
        tasks = self._session.get("cluster/tasks", doing="list the tasks", shape=_TASKS)
        return sorted(map(TaskStatus.listed, tasks), key=lambda task: task.upid.started, reverse=True)

    def task_of(self, vmid: int, type_: str) -> TaskStatus | None:
        """The newest task of a type (`qmcreate`, `qmstart`…) on a VM, a running one first; None if there is none."""
        tasks = [task for task in self.cluster_tasks() if (task.upid.type, task.upid.id) == (type_, str(vmid))]
        return next((task for task in tasks if task.running), tasks[0] if tasks else None)

    def config(self, node: str, vmid: int) -> Json:
        """A VM's configuration, pending changes included, with its `digest`.

        While the VM is being created it has only `lock: create` and the digest, neither name nor uuid.
        """
        doing, shape = f"read VM {vmid} on {node}", {"*": (str, int, float)}
        return self._session.get(f"{vm_path(node, vmid)}/config", doing=doing, shape=shape, needs=_AUDIT)

    def vm_status(self, node: str, vmid: int) -> Json:
        """`status` (running, stopped), `lock` if there is one, `uptime`, `qmpstatus`… as of now."""
        doing = f"read the status of VM {vmid} on {node}"
        shape = {"status": str, "lock?": str}
        return self._session.get(f"{vm_path(node, vmid)}/status/current", doing=doing, shape=shape, needs=_AUDIT)

    def task_status(self, upid: Upid) -> TaskStatus:
        """The state of a task."""
        path, shape = f"nodes/{upid.node}/tasks/{upid}/status", {"status": str, "exitstatus?": str}
        return TaskStatus.read(upid, self._session.get(path, doing=f"read task {upid}", shape=shape))

    def task_log(self, upid: Upid, *, tail: int = LOG_TAIL) -> tuple[str, ...]:
        """The last lines of a task's log."""
        path = f"nodes/{upid.node}/tasks/{upid}/log"
        doing, shape = f"read the log of task {upid}", [{"n": _NUMBER, "t?": str}]
        lines = self._session.get(path, doing=doing, shape=shape, start=0, limit=5000)
        return tuple(str(line.get("t", "")) for line in sorted(lines, key=lambda line: int(line["n"])))[-tail:]

    def download_url(self, node: str, storage: str, *, url: str, filename: str) -> Upid:
        """Let a host download an ISO image into a storage. Not repeated: a second download would fail."""
        needs = Need(f"/storage/{storage}", "Datastore.AllocateTemplate"), Need(f"/nodes/{node}", "Sys.AccessNetwork")
        path, doing = f"nodes/{node}/storage/{storage}/download-url", f"download {filename} to {storage} on {node}"
        return self._task("POST", path, doing, needs, url=url, filename=filename, content="iso")

    def create_vm(self, node: str, *, vmid: int, **params: Any) -> Upid:
        """Create a VM; the parameters are those of POST /nodes/{node}/qemu. Never repeated.

        Raises:
            Conflict: the id is taken; the uuid and tag show whether by the VM of an earlier attempt.
            Unreachable: no answer; it may have been created nevertheless (see `config`, `task_of`).
        """
        return self._task("POST", f"nodes/{node}/qemu", f"create VM {vmid} on {node}", _ALLOCATE, vmid=vmid, **params)

    def configure(
        self, node: str, vmid: int, changes: Mapping[str, Any], *, digest: str | None = None, delete: str | None = None
    ) -> None:
        """Change a VM's configuration (PUT); what a running VM cannot change stays pending until its next start.

        Args:
            node: the host.
            vmid: the VM.
            changes: options and their new values.
            digest: that of the configuration from which the changes were planned.
            delete: options to remove, comma-separated.

        Raises:
            Conflict: the configuration has changed since the digest.
            VmLocked: another task works on the VM.
        """
        doing = f"change VM {vmid} on {node}"
        self._session.call(
            "PUT", f"{vm_path(node, vmid)}/config", doing=doing, **{**changes, "digest": digest, "delete": delete}
        )

    def resize(self, node: str, vmid: int, disk: str, gib: int, *, digest: str | None = None) -> Upid:
        """Grow a disk to a size in GiB; a repetition changes nothing."""
        doing, path = f"resize {disk} of VM {vmid} on {node}", f"{vm_path(node, vmid)}/resize"
        return self._task("PUT", path, doing, repeat=True, disk=disk, size=f"{gib}G", digest=digest)

    def start(self, node: str, vmid: int) -> Upid:
        """Start a VM; after a lost answer, a task that was started nevertheless is used."""
        return self._power(node, vmid, "start", reached="running")

    def stop(self, node: str, vmid: int) -> Upid:
        """Stop a VM at once."""
        return self._power(node, vmid, "stop", reached="stopped")

    def shutdown(self, node: str, vmid: int, *, timeout: int = 60, force_stop: bool = True) -> Upid:
        """Ask a VM to shut down; after `timeout` seconds it is stopped if `force_stop`, else the task fails."""
        return self._power(node, vmid, "shutdown", reached="stopped", timeout=timeout, forceStop=force_stop)

    def reboot(self, node: str, vmid: int, *, timeout: int = 60) -> Upid:
        """Shut a VM down and start it again in one task, from its firmware; changes that are pending take effect.

        After `timeout` seconds without a shutdown the task fails, and the VM stays on.
        """
        path, doing = f"{vm_path(node, vmid)}/status/reboot", f"reboot VM {vmid} on {node}"
        return self._task("POST", path, doing, _POWER, timeout=timeout)

    def delete(self, node: str, vmid: int) -> Upid:
        """Destroy a stopped VM with the disks of its configuration, and take it out of backup jobs, HA and replication.

        Volumes that carry its number and stand in no configuration stay: on storage that two clusters share they may be
        the other's.
        """
        options: Json = {"purge": 1, "destroy-unreferenced-disks": 0}
        return self._task("DELETE", vm_path(node, vmid), f"destroy VM {vmid} on {node}", _ALLOCATE, **options)

    def _power(self, node: str, vmid: int, verb: str, *, reached: str, **params: Any) -> Upid:
        path, doing = f"{vm_path(node, vmid)}/status/{verb}", f"{verb} VM {vmid} on {node}"
        try:
            return self._task("POST", path, doing, _POWER, **params)
        except OutsideError as error:
            if not is_passing(error):
                raise
        task = self.task_of(vmid, f"qm{verb}")
        if task and (task.running or self.vm_status(node, vmid)["status"] == reached):
            return task.upid
        return self._task("POST", path, doing, _POWER, repeat=True, **params)

    def _task(self, method: str, path: str, doing: str, needs: tuple[Need, ...] = (), **params: Any) -> Upid:
        """A call that starts a task; the arguments are those of `Session.call`."""
        return Upid.parse(self._session.call(method, path, doing=doing, shape=UPID, needs=needs, **params))

    def wait(
        self, upid: Upid, *, deadline: float, name: str = "", on_poll: Callable[[TaskStatus], None] = lambda _: None
    ) -> TaskStatus:
        """Wait until a task has succeeded.

        Args:
            upid: the task.
            deadline: seconds to wait at most.
            name: the deadline's name in the params, for the message.
            on_poll: called with each status that was read.

        Returns:
            The last status; its `exit` is OK, or names warnings.

        Raises:
            TaskFailed: it failed; the tail of its log is attached.
            VmLocked: it failed because the VM is locked.
            DeadlineExceeded: it still runs.
            NotFound: Proxmox VE does not know it.
        """
        begun, passing = time.monotonic(), list[OutsideError]()

        def ended() -> TaskStatus | None:
            try:
                status = self.task_status(upid)
            except OutsideError as error:
                unknown_yet = error.code == "400" and time.monotonic() - begun < UNKNOWN_FOR
                if not (unknown_yet or is_passing(error)):
                    raise
                passing[:] = [error]
                return None
            passing.clear()
            on_poll(status)
            if status.running:
                return None
            if not status.ok:
                raise task_failure(upid, status.exit, self._log_if_any(upid))
            return status

        try:
            status = wait_until(
                ended,
                what=f"task {upid.type} {upid.id} on {upid.node}" + (f" (deadlines.{name})" if name else ""),
                timeout=deadline,
                cancellation=Cancellation(),
                interval=partial(self._pace.pause, upid.type),
                final=(FluobookError,),
                remedy=f"`pvenode task log {upid}` on {upid.node} says more; run the stage again, it waits for it"
                + (f"; or raise deadlines.{name} in the params" if name else ""),
            )
        except DeadlineExceeded as late:
            late.cause = passing[0].message if passing else ""
            raise late from (passing[0] if passing else None)
        self._pace.learn(upid.type, time.monotonic() - begun)
        return status

    def wait_unlocked(
        self,
        node: str,
        vmid: int,
        *,
        deadline: float,
        name: str = "vm_lock",
        on_poll: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Wait until no task locks a VM; `on_poll` gets the lock's name at each poll.

        Raises:
            DeadlineExceeded: it is still locked; its cause names the lock.
        """

        def unlocked() -> bool:
            if lock := str(self.vm_status(node, vmid).get("lock") or ""):
                on_poll(lock)
                raise VmLocked(f"VM {vmid} on {node} is still locked ({lock})", lock=lock, vmid=str(vmid), node=node)
            return True

        wait_until(
            unlocked,
            what=f"the lock of VM {vmid} on {node} (deadlines.{name})",
            timeout=deadline,
            cancellation=Cancellation(),
            interval=poll_interval,
            final=(NotFound,),
            remedy=f"find its task in the Proxmox VE task list; only if none is running: qm unlock {vmid} on {node}",
        )

    def _log_if_any(self, upid: Upid) -> tuple[str, ...]:
        try:
            return self.task_log(upid)
        except OutsideError as error:
            return (f"(the log could not be read: {error.message})",)


def vm_path(node: str, vmid: int) -> str:
    """The path of a VM below /api2/json."""
    return f"nodes/{node}/qemu/{vmid}"


def _sdn_path(kind: str, name: str, vnet: str) -> str:
    """The path of an SDN object below /api2/json."""
    folder = {"subnets": f"vnets/{vnet}/subnets", "fabrics": "fabrics/fabric", "nodes": "fabrics/node"}.get(kind, kind)
    return f"cluster/sdn/{folder}/{name}"
