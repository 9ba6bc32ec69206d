"""What the stages change through Proxmox VE: images, machines, their power; and the waits for it.

What may be done twice is repeated while the answer is transient. Creating a machine is never repeated here: after a
lost answer only a look at what exists can tell (`task_of`, `config`).
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from fluobook.clients.proxmox import waiting
from fluobook.clients.proxmox.failures import may_help_to_repeat
from fluobook.clients.proxmox.pace import Pace, poll_interval
from fluobook.clients.proxmox.privileges import Need
from fluobook.clients.proxmox.reader import ProxmoxReader, vm_path
from fluobook.clients.proxmox.tasks import TaskStatus, Upid
from fluobook.errors import OutsideError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_POWER = (Need("/vms", "VM.PowerMgmt"),)


class ProxmoxClient(ProxmoxReader):
    """A Proxmox VE endpoint, looked at and changed."""

    @cached_property
    def _tasks(self) -> Pace:
        return Pace()

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
            "PUT", f"{vm_path(node, vmid)}/config", doing=doing, **{**changes, "digest": digest, "delete": delete}
        )

    def resize(self, node: str, vmid: int, disk: str, gib: int, *, digest: str | None = None) -> Upid:
        """Grow a disk to a size in GiB; asking for the size it has changes nothing, so it is repeated."""
        doing = f"resize {disk} of VM {vmid} on {node}"
        answer = self._session.repeat(
            "PUT", f"{vm_path(node, vmid)}/resize", doing=doing, disk=disk, size=f"{gib}G", digest=digest
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
            self._session.once(
                "POST", f"{vm_path(node, vmid)}/status/reboot", doing=doing, needs=_POWER, timeout=timeout
            )
        )

    def delete(self, node: str, vmid: int) -> Upid:
        """Destroy a stopped VM with all its disks."""
        return Upid.parse(
            self._session.once(
                "DELETE",
                vm_path(node, vmid),
                doing=f"destroy VM {vmid} on {node}",
                needs=(Need("/vms", "VM.Allocate"),),
                **{"purge": 1, "destroy-unreferenced-disks": 1},
            )
        )

    def _power(self, node: str, vmid: int, verb: str, *, reached: str, **params: Any) -> Upid:
        path, doing = f"{vm_path(node, vmid)}/status/{verb}", f"{verb} VM {vmid} on {node}"
        try:
            return Upid.parse(self._session.once("POST", path, doing=doing, needs=_POWER, **params))
        except OutsideError as error:
            if not may_help_to_repeat(error):
                raise
        task = self.task_of(vmid, f"qm{verb}")
        if task and (task.running or self.vm_status(node, vmid)["status"] == reached):
            return task.upid
        return Upid.parse(self._session.repeat("POST", path, doing=doing, needs=_POWER, **params))

    def wait(
        self,
        upid: Upid,
        *,
        deadline: float,
        name: str = "",
        on_poll: Callable[[TaskStatus], None] | None = None,
    ) -> TaskStatus:
        """Wait until a task has ended well.

        Args:
            upid: the task.
            deadline: seconds to wait at most.
            name: the wait's name in the params' deadlines, for the message.
            on_poll: called with each status that was read.

        Returns:
            The last status; its `exit` is OK, or tells of warnings.

        Raises:
            TaskFailed: it ended in an error; the tail of its log is attached.
            VmLocked: it ended because the machine is locked.
            DeadlineExceeded: it still runs.
            NotFound: Proxmox VE does not know it.
        """
        wait = waiting.Wait(name, deadline, partial(self._tasks.pause, upid.type))
        status = waiting.until_ended(self, upid, wait, on_poll or (lambda _: None))
        self._tasks.learn(upid.type, wait.waited)
        return status

    def wait_unlocked(
        self,
        node: str,
        vmid: int,
        *,
        deadline: float,
        name: str = "vm_lock",
        on_poll: Callable[[str], None] | None = None,
    ) -> None:
        """Wait until nothing locks a machine any more; `on_poll` gets the lock's name at each look.

        Raises:
            DeadlineExceeded: it is still locked; the message names the lock.
        """
        wait = waiting.Wait(name, deadline, poll_interval)
        waiting.until_unlocked(self, (node, vmid), wait, on_poll or (lambda _: None))
