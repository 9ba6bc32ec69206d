"""What can be read of a Proxmox VE endpoint: its rights, hosts, storages, machines and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from fluobook.clients.proxmox.privileges import Need
from fluobook.clients.proxmox.session import Session
from fluobook.clients.proxmox.tasks import LOG_TAIL, TaskStatus, Upid
from fluobook.errors import OutsideError

if TYPE_CHECKING:
    from fluobook.clients.proxmox.endpoint import ProxmoxEndpoint

Json = dict[str, Any]

_AUDIT = (Need("/vms", "VM.Audit"),)


class ProxmoxReader:
    """A Proxmox VE endpoint, only looked at. Blocking and thread-safe; a transient answer is asked for again.

    Every method raises the errors of `fluobook.errors.OutsideError` that `failures.refusal` names.

    Args:
        endpoint: where, and who we are.
    """

    def __init__(self, endpoint: ProxmoxEndpoint) -> None:
        self.endpoint = endpoint
        self._session = Session(endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all threads."""
        self._session.close()

    def version(self) -> Json:
        """`{version: "9.0.10", release: "9.0", …}`."""
        return self._session.get("version", doing="read the version")

    def permissions(self, path: str | None = None) -> dict[str, dict[str, int]]:
        """What the token may do: path → privilege → whether it propagates."""
        return self._session.get("access/permissions", doing="read the token's permissions", path=path)

    def resources(self, type_: str | None = None) -> list[Json]:
        """Everything in the cluster, or only `vm`, `node` or `storage`.

        Status and name of a VM are refreshed every 10 s only, `lock` and `tags` at once; `vm_status` is current.
        """
        return self._session.get("cluster/resources", doing="list the resources", type=type_)

    def next_id(self) -> int:
        """The lowest free VM id."""
        return int(self._session.get("cluster/nextid", doing="ask for a free VM id"))

    def id_taken(self, vmid: int) -> bool:
        """Whether any guest in the cluster has this id, be it visible to the token or not."""
        try:
            self._session.get("cluster/nextid", doing=f"ask whether VM id {vmid} is free", vmid=vmid)
        except OutsideError as error:
            if f"VM {vmid} already exists" in error.detail:
                return True
            raise
        return False

    def nodes(self) -> list[Json]:
        """The hosts, with `node` and `status` (online, offline, unknown)."""
        return self._session.get("nodes", doing="list the nodes")

    def networks(self, node: str) -> list[Json]:
        """A host's network interfaces (`iface`, `type`); bridges without SDN.Audit or SDN.Use are left out."""
        return self._session.get(f"nodes/{node}/network", doing=f"list the networks of {node}")

    def storages(self, node: str) -> list[Json]:
        """A host's storages: `storage`, `content` (comma-separated), `active`, `total` and `avail` in bytes."""
        return self._session.get(f"nodes/{node}/storage", doing=f"list the storages of {node}")

    def storage_content(self, node: str, storage: str, content: str | None = None) -> list[Json]:
        """The volumes on a storage: `volid`, `content`, `format`, `size` in bytes, `vmid`."""
        path = f"nodes/{node}/storage/{storage}/content"
        needs = (Need(f"/storage/{storage}", "Datastore.Audit"),)
        return self._session.get(path, doing=f"list {storage} on {node}", needs=needs, content=content)

    def cluster_tasks(self) -> list[TaskStatus]:
        """The recent tasks of the whole cluster, as far as the token may see them, newest first."""
        listed = [TaskStatus.listed(task) for task in self._session.get("cluster/tasks", doing="list the tasks")]
        return sorted(listed, key=lambda task: task.upid.started, reverse=True)

    def task_of(self, vmid: int, type_: str) -> TaskStatus | None:
        """The newest task of a type (`qmcreate`, `qmstart`…) on a VM, a running one first; None if there is none."""
        found = [task for task in self.cluster_tasks() if (task.upid.type, task.upid.id) == (type_, str(vmid))]
        return next((task for task in found if task.running), found[0] if found else None)

    def query_url(self, node: str, url: str) -> Json:
        """What a host sees at a URL: `{filename, size, mimetype}`."""
        return self._session.get(
            f"nodes/{node}/query-url-metadata",
            doing=f"look at {url} from {node}",
            needs=(Need(f"/nodes/{node}", "Sys.AccessNetwork"),),
            url=url,
        )

    def config(self, node: str, vmid: int) -> Json:
        """A VM's configuration, pending changes included, with its `digest`.

        While the VM is being created it holds nothing but `lock: create` and the digest: neither name nor uuid.
        """
        return self._session.get(f"{vm_path(node, vmid)}/config", doing=f"read VM {vmid} on {node}", needs=_AUDIT)

    def pending(self, node: str, vmid: int) -> list[Json]:
        """Each option with `value`, and `pending` or `delete` where it changes with the next start."""
        return self._session.get(f"{vm_path(node, vmid)}/pending", doing=f"read VM {vmid} on {node}", needs=_AUDIT)

    def vm_status(self, node: str, vmid: int) -> Json:
        """`status` (running, stopped), `lock` if there is one, `uptime`, `qmpstatus`… as of now."""
        doing = f"read the status of VM {vmid} on {node}"
        return self._session.get(f"{vm_path(node, vmid)}/status/current", doing=doing, needs=_AUDIT)

    def task_status(self, upid: Upid) -> TaskStatus:
        """Whether a task runs, and how it ended."""
        path = f"nodes/{upid.node}/tasks/{upid}/status"
        return TaskStatus.read(upid, self._session.get(path, doing=f"read task {upid}"))

    def task_log(self, upid: Upid, *, tail: int = LOG_TAIL) -> tuple[str, ...]:
        """The last lines of a task's log."""
        path = f"nodes/{upid.node}/tasks/{upid}/log"
        lines = self._session.get(path, doing=f"read the log of task {upid}", start=0, limit=5000)
        return tuple(str(line.get("t", "")) for line in sorted(lines, key=lambda line: int(line["n"])))[-tail:]


def vm_path(node: str, vmid: int) -> str:
    """Where a machine is found below /api2/json."""
    return f"nodes/{node}/qemu/{vmid}"
