"""The calls to Proxmox VE that the stages make, each with exactly the parameters it takes.

Blocking and thread-safe. What only reads, and what may be done twice, is repeated while the answer is transient.
Creating a VM is never repeated here: after a lost answer only a look at what exists can tell.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from fluobook.clients.proxmox.failures import may_help_to_repeat, task_failure
from fluobook.clients.proxmox.privileges import Need
from fluobook.clients.proxmox.session import Session
from fluobook.clients.proxmox.tasks import LOG_TAIL, TaskStatus, Upid, poll_interval
from fluobook.errors import DeadlineExceeded, OutsideError, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fluobook.clients.proxmox.endpoint import ProxmoxEndpoint

Json = dict[str, Any]


class ProxmoxClient:
    """A Proxmox VE endpoint.

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

    # what is there

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

    # images

    def query_url(self, node: str, url: str) -> Json:
        """What a host sees at a URL: `{filename, size, mimetype}`."""
        return self._session.get(
            f"nodes/{node}/query-url-metadata",
            doing=f"look at {url} from {node}",
            needs=(Need(f"/nodes/{node}", "Sys.AccessNetwork"),),
            url=url,
        )

    def download_url(
        self, node: str, storage: str, *, url: str, filename: str, content: str = "iso", checksum: str | None = None
    ) -> Upid:
        """Have a host download a file into a storage; `checksum` is SHA-256. Not repeated: a second one would fail."""
        return Upid.parse(
            self._session.once(
                "POST",
                f"nodes/{node}/storage/{storage}/download-url",
                doing=f"download {filename} to {storage} on {node}",
                needs=(
                    Need(f"/storage/{storage}", "Datastore.AllocateTemplate"),
                    Need(f"/nodes/{node}", "Sys.AccessNetwork"),
                ),
                url=url,
                filename=filename,
                content=content,
                **({"checksum": checksum, "checksum-algorithm": "sha256"} if checksum else {}),
            )
        )

    # virtual machines

    def create_vm(self, node: str, *, vmid: int, **params: Any) -> Upid:
        """Create a VM; the parameters are those of POST /nodes/{node}/qemu. Never repeated.

        Raises:
            Conflict: the id is taken; whether by the VM of an earlier attempt only its uuid and tag tell.
            Unreachable: no answer; it may have been created all the same (see `config`, `task_of`).
        """
        return Upid.parse(
            self._session.once(
                "POST",
                f"nodes/{node}/qemu",
                doing=f"create VM {vmid} on {node}",
                needs=(Need("/vms", "VM.Allocate"),),
                vmid=vmid,
                **params,
            )
        )

    def config(self, node: str, vmid: int) -> Json:
        """A VM's configuration, pending changes included, with its `digest`.

        While the VM is being created it holds nothing but `lock: create` and the digest: neither name nor uuid.
        """
        return self._session.get(f"{_vm(node, vmid)}/config", doing=f"read VM {vmid} on {node}", needs=_AUDIT)

    def pending(self, node: str, vmid: int) -> list[Json]:
        """Each option with `value`, and `pending` or `delete` where it changes with the next start."""
        return self._session.get(f"{_vm(node, vmid)}/pending", doing=f"read VM {vmid} on {node}", needs=_AUDIT)

    def vm_status(self, node: str, vmid: int) -> Json:
        """`status` (running, stopped), `lock` if there is one, `uptime`, `qmpstatus`… as of now."""
        doing = f"read the status of VM {vmid} on {node}"
        return self._session.get(f"{_vm(node, vmid)}/status/current", doing=doing, needs=_AUDIT)

    def configure(
        self, node: str, vmid: int, changes: Mapping[str, Any], *, digest: str | None = None, delete: str | None = None
    ) -> None:
        """Change a VM's configuration (PUT); what a running VM cannot take stays pending until its next start.

        Args:
            node: the host.
            vmid: the VM.
            changes: options and their new values.
            digest: that of the configuration the changes were planned from; with it nothing is changed twice.
            delete: options to remove, comma-separated.

        Raises:
            Conflict: the configuration has changed since the digest.
            VmLocked: something is at work on the VM.
        """
        doing = f"change VM {vmid} on {node}"
        self._session.once(
            "PUT", f"{_vm(node, vmid)}/config", doing=doing, **{**changes, "digest": digest, "delete": delete}
        )

    def resize(self, node: str, vmid: int, disk: str, gib: int, *, digest: str | None = None) -> Upid:
        """Grow a disk to a size in GiB; asking for the size it has changes nothing, so it is repeated."""
        doing = f"resize {disk} of VM {vmid} on {node}"
        answer = self._session.repeat(
            "PUT", f"{_vm(node, vmid)}/resize", doing=doing, disk=disk, size=f"{gib}G", digest=digest
        )
        return Upid.parse(answer)

    def start(self, node: str, vmid: int) -> Upid:
        """Start a VM; after a lost answer the task that was started all the same is found, not started twice."""
        return self._power(node, vmid, "start", reached="running")

    def stop(self, node: str, vmid: int) -> Upid:
        """Stop a VM at once."""
        return self._power(node, vmid, "stop", reached="stopped")

    def shutdown(self, node: str, vmid: int, *, timeout: int = 60, force_stop: bool = True) -> Upid:
        """Ask a VM to shut down; after `timeout` seconds it is stopped if `force_stop`, else the task fails."""
        return self._power(node, vmid, "shutdown", reached="stopped", timeout=timeout, forceStop=force_stop)

    def reboot(self, node: str, vmid: int, *, timeout: int = 60) -> Upid:
        """Shut a VM down and start it again, which takes over pending changes. Not repeated."""
        doing = f"reboot VM {vmid} on {node}"
        return Upid.parse(
            self._session.once("POST", f"{_vm(node, vmid)}/status/reboot", doing=doing, needs=_POWER, timeout=timeout)
        )

    def delete(self, node: str, vmid: int) -> Upid:
        """Destroy a stopped VM with all its disks."""
        return Upid.parse(
            self._session.once(
                "DELETE",
                _vm(node, vmid),
                doing=f"destroy VM {vmid} on {node}",
                needs=(Need("/vms", "VM.Allocate"),),
                **{"purge": 1, "destroy-unreferenced-disks": 1},
            )
        )

    def _power(self, node: str, vmid: int, verb: str, *, reached: str, **params: Any) -> Upid:
        path, doing = f"{_vm(node, vmid)}/status/{verb}", f"{verb} VM {vmid} on {node}"
        try:
            return Upid.parse(self._session.once("POST", path, doing=doing, needs=_POWER, **params))
        except OutsideError as error:
            if not may_help_to_repeat(error):
                raise
        task = self.task_of(vmid, f"qm{verb}")
        if task and (task.running or self.vm_status(node, vmid)["status"] == reached):
            return task.upid
        return Upid.parse(self._session.repeat("POST", path, doing=doing, needs=_POWER, **params))

    # tasks

    def task_status(self, upid: Upid) -> TaskStatus:
        """Whether a task runs, and how it ended."""
        path = f"nodes/{upid.node}/tasks/{upid}/status"
        return TaskStatus.read(upid, self._session.get(path, doing=f"read task {upid}"))

    def task_log(self, upid: Upid, *, tail: int = LOG_TAIL) -> tuple[str, ...]:
        """The last lines of a task's log."""
        path = f"nodes/{upid.node}/tasks/{upid}/log"
        lines = self._session.get(path, doing=f"read the log of task {upid}", start=0, limit=5000)
        return tuple(str(line.get("t", "")) for line in sorted(lines, key=lambda line: int(line["n"])))[-tail:]

    def wait(
        self,
        upid: Upid,
        *,
        deadline: float,
        name: str = "",
        on_poll: Callable[[TaskStatus], None] | None = None,
        poll: Callable[[float], float] = poll_interval,
    ) -> TaskStatus:
        """Wait until a task has ended well.

        Args:
            upid: the task.
            deadline: seconds to wait at most.
            name: the wait's name in the params' deadlines, for the message.
            on_poll: called with each status that was read.
            poll: from the seconds waited so far, the seconds until the next look.

        Returns:
            The last status; its `exit` is OK, or tells of warnings.

        Raises:
            TaskFailed: it ended in an error; the tail of its log is attached.
            VmLocked: it ended because the VM is locked.
            DeadlineExceeded: it still runs.
        """
        begun = time.monotonic()
        while True:
            waited = time.monotonic() - begun
            if waited >= deadline:
                raise self._too_long(upid, deadline, name)
            time.sleep(min(poll(waited), deadline - waited))
            status = self._look(upid)
            if status is None:
                continue
            if on_poll:
                on_poll(status)
            if not status.running:
                break
        if status.ok:
            return status
        raise task_failure(upid, status.exit, self._log_if_any(upid))

    def wait_unlocked(
        self,
        node: str,
        vmid: int,
        *,
        deadline: float,
        name: str = "vm_lock",
        on_poll: Callable[[str], None] | None = None,
        poll: Callable[[float], float] = poll_interval,
    ) -> None:
        """Wait until nothing locks a VM any more; `on_poll` gets the lock's name at each look.

        Raises:
            DeadlineExceeded: it is still locked; the message names the lock.
        """
        begun = time.monotonic()
        while lock := str(self.vm_status(node, vmid).get("lock") or ""):
            if on_poll:
                on_poll(lock)
            waited = time.monotonic() - begun
            if waited >= deadline:
                raise DeadlineExceeded(
                    f"VM {vmid} on {node} is still locked ({lock}) after {deadline:g} s, the deadline {name}",
                    cause=f"a {lock} of it is running, or was broken off and left its lock behind",
                    remedy=f"look for its task in the Proxmox VE task list; only if none runs: qm unlock {vmid}",
                )
            time.sleep(min(poll(waited), deadline - waited))

    def _look(self, upid: Upid) -> TaskStatus | None:
        """A task's status; None where the answer says nothing about the task.

        Right after its start Proxmox VE may not know the task yet (400), and a host that is busy may not answer.
        """
        try:
            return self.task_status(upid)
        except Rejected as error:
            if error.code != "400":
                raise
        except OutsideError as error:
            if not may_help_to_repeat(error):
                raise
        return None

    def _log_if_any(self, upid: Upid) -> tuple[str, ...]:
        try:
            return self.task_log(upid)
        except OutsideError as error:
            return (f"(the log could not be read: {error.message})",)

    def _too_long(self, upid: Upid, deadline: float, name: str) -> DeadlineExceeded:
        of = f", the deadline {name}" if name else ""
        return DeadlineExceeded(
            f"task {upid.type} {upid.id} on {upid.node} has not ended after {deadline:g} s{of}",
            cause="the host or the storage is slow, or the task hangs; it goes on without us",
            remedy=f"pvenode task log {upid} on {upid.node}; run the stage again, it waits for the same task"
            + (f"; or raise deadlines.{name} in the params" if name else ""),
        )


_AUDIT = (Need("/vms", "VM.Audit"),)
_POWER = (Need("/vms", "VM.PowerMgmt"),)


def _vm(node: str, vmid: int) -> str:
    return f"nodes/{node}/qemu/{vmid}"
