"""Does one action of stage 1; each may be broken off at any moment and done again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.clients.proxmox import ProxmoxClient, Upid, VmLocked
from fluobook.clients.talos import Mode, probe
from fluobook.errors import Conflict, ForeignObject, NotFound, OutsideError, Rejected, TaskFailed, Unreachable
from fluobook.machine.schematic import image_of
from fluobook.stages.core.nodes import is_ready
from fluobook.stages.create_vms.hardware import TAG, create_params, disks, net0, tags, tags_of, uuid_of
from fluobook.stages.create_vms.observe import has_image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.params import Node
    from fluobook.stages.core.executor import Tell
    from fluobook.stages.core.plan import Action
    from fluobook.stages.core.site import Site

START_TRIES = 3
"""How often a start is tried; a VM whose start failed is never destroyed."""


def perform(site: Site, action: Action, tell: Tell) -> Mapping[str, Any] | None:
    """Do one action."""
    if action.verb == "download":
        return _download(site, action, tell)
    node = site.platform.node(action.data["node"])
    does = {"create": _create, "start": _start, "change": _change}[action.verb]
    return does(site, node, action, tell)


def _client(site: Site, node: Node) -> ProxmoxClient:
    return site.proxmox(site.platform.endpoint_of(node).name)


def _download(site: Site, action: Action, tell: Tell) -> Mapping[str, Any]:
    """Have the host fetch the image; one that another run has begun, or has just finished, will do."""
    host, file = action.data["host"], action.data["file"]
    endpoint = next(e for e in site.platform.proxmox if host in e.hosts)
    client = site.proxmox(endpoint.name)
    _register(site)
    wanted = ("download", file, host)
    running = (t.upid for t in client.cluster_tasks() if t.running and (t.upid.type, t.upid.id, t.upid.node) == wanted)
    upid = next(running, None) or client.download_url(
        host, endpoint.image_storage, url=action.data["url"], filename=file
    )
    try:
        return _wait(site, client, upid, tell, "image_download")
    except TaskFailed:
        if has_image(client, host, endpoint.image_storage, file):
            return {"existed": True}
        raise


def _register(site: Site) -> None:
    """The factory makes only images of schematics it was told; telling it again changes nothing."""
    text = (site.root / "talos" / "schematic.yaml").read_text()
    image = image_of(text, site.platform.versions.talos)
    if (told := site.factory.schematic(text)) != image.schematic:
        raise Rejected(
            f"the Image Factory calls the schematic {told[:16]}, computed here it is {image.schematic[:16]}",
            system="factory",
            cause="talos/schematic.yaml holds something whose canonical form is not known here",
            remedy="write its values plainly, then run the stage again",
        )


def _wait(site: Site, client: ProxmoxClient, upid: Upid, tell: Tell, deadline: str) -> Mapping[str, Any]:
    """Journal the task's id before asking for it the first time: after a crash it is the trace of what runs."""
    tell.evidence(upid=str(upid))
    tell(f"task {upid.type}")
    status = client.wait(
        upid, deadline=getattr(site.platform.deadlines, deadline), name=deadline, on_poll=site.halt.check
    )
    return {"upid": str(upid), "exit": status.exit}


def _create(site: Site, node: Node, action: Action, tell: Tell) -> Mapping[str, Any]:
    """Ask for the VM; only if that gives no task, look at what there is: the plan was made a moment ago."""
    client = _client(site, node)
    upid = _order(client, node, action.data["params"])
    if upid is not None:
        return _wait(site, client, upid, tell, "vm_create")
    return _wait_for_lost(site, client, node, tell)


def _creating(client: ProxmoxClient, node: Node) -> Upid | None:
    task = client.task_of(node.vmid, "qmcreate")
    return task.upid if task and task.running else None


def _exists(client: ProxmoxClient, node: Node) -> bool:
    """Whether the VM of that number is there and ours.

    Raises:
        ForeignObject: it is there and not ours.
    """
    try:
        config = client.config(node.host, node.vmid)
    except NotFound:
        return False
    if uuid_of(config) == node.uuid.lower() and TAG in tags_of(config):
        return True
    raise ForeignObject(
        f"VM {node.vmid} ({config.get('name') or 'without a name'}) on {node.host} is not ours",
        cause="its SMBIOS uuid or its tag is not that of our node",
        remedy=f"pin another number for {node.name} in the params (nodes[].vmid)",
    )


def _order(client: ProxmoxClient, node: Node, params: Mapping[str, Any]) -> Upid | None:
    """Ask for the VM; None when no answer came or when it turned out to exist: only a look can tell then."""
    try:
        return client.create_vm(node.host, vmid=node.vmid, **params)
    except (Conflict, Unreachable):
        return None
    except OutsideError as error:
        if not error.code.startswith("5"):
            raise
        if _creating(client, node) or _exists(client, node):
            return None
        return client.create_vm(node.host, vmid=node.vmid, **params)


def _wait_for_lost(site: Site, client: ProxmoxClient, node: Node, tell: Tell) -> Mapping[str, Any]:
    if task := _creating(client, node):
        return _wait(site, client, task, tell, "vm_create")
    if _exists(client, node):
        return {"existed": True}
    raise Unreachable(
        f"Proxmox VE did not answer when {node.name} was to be created, and it was not created",
        system="proxmox",
        remedy="run the stage again",
    )


def _start(site: Site, node: Node, _action: Action, tell: Tell) -> Mapping[str, Any]:
    evidence = _power_on(site, node, tell)
    tell.leave()
    tell("waits for the Talos API")
    site.wait_until(
        "maintenance", f"{node.name} answers at {node.address}:50000", lambda: _answers(site, node), every=0.1
    )
    return evidence


def _power_on(site: Site, node: Node, tell: Tell) -> Mapping[str, Any]:
    """Start the VM; a lock is waited for, a start that fails is tried again. One that runs already is fine."""
    client, deadlines, tries = _client(site, node), site.platform.deadlines, 0
    while True:
        try:
            return _wait(site, client, client.start(node.host, node.vmid), tell, "vm_start")
        except VmLocked as error:
            tell.evidence(lock=error.lock)
            tell(f"locked ({error.lock})")
            wait_deadline = deadlines.vm_lock
            client.wait_unlocked(
                node.host, node.vmid, deadline=wait_deadline, on_poll=lambda lock: tell(f"locked ({lock})")
            )
        except TaskFailed as error:
            tries += 1
            tell.evidence(start_failed=error.detail)
            if tries == START_TRIES:
                raise


def _answers(site: Site, node: Node) -> bool | None:
    return True if probe(site.talos_address(node), timeout=2).mode is not Mode.UNREACHABLE else None


def _change(site: Site, node: Node, action: Action, tell: Tell) -> Mapping[str, Any]:
    client = _client(site, node)
    client.wait_unlocked(
        node.host, node.vmid, deadline=site.platform.deadlines.vm_lock, on_poll=lambda lock: tell(f"locked ({lock})")
    )
    config = client.config(node.host, node.vmid)
    changes = _changes(site, node, config, action.data["fields"])
    if changes:
        client.configure(node.host, node.vmid, changes, digest=config.get("digest"))
    for disk, size in disks(node).items():
        if disk in action.data["fields"] and disk in config:
            _wait(site, client, client.resize(node.host, node.vmid, disk, size), tell, "vm_create")
    if action.data["cycle"]:
        _cycle(site, client, node, tell)
    return {"changed": action.data["fields"]}


def _changes(site: Site, node: Node, config: Mapping[str, Any], fields: list[str]) -> dict[str, Any]:
    wanted = create_params(site.platform, node, "")
    heads = {field.split()[0] for field in fields} - {"running"}
    changes = {head: wanted[head] for head in heads if not head.startswith("scsi") or head not in config}
    if "tags" in changes:
        changes["tags"] = ";".join(sorted(tags_of(config) | set(tags(site.platform).split(";"))))
    if "net0" in changes:
        changes["net0"] = net0(site.platform, node)
    return changes


def _cycle(site: Site, client: ProxmoxClient, node: Node, tell: Tell) -> None:
    """Off and on again; the next node's turn comes when this one is as ready as it was before."""
    before = _serves(site, node)
    _wait(site, client, client.shutdown(node.host, node.vmid, timeout=60), tell, "vm_start")
    _power_on(site, node, tell)
    tell("waits for the Talos API")
    site.wait_until("maintenance", f"{node.name} answers again", lambda: _answers(site, node))
    tell("waits until it is ready again")
    site.wait_until("nodes_ready", f"{node.name} is ready again", lambda: before <= _serves(site, node) or None)


def _serves(site: Site, node: Node) -> set[str]:
    """What a node is good for: whether all is well with it, and, on a control plane, whether the API answers.

    The stages that follow begin by asking that API, and where there is one control plane it goes with the node.
    """
    told = {"ready"} if is_ready(site, node) else set()
    if node.role == "controlplane" and site.vault.has_bundle() and site.kube().ready():
        told.add("api")
    return told
