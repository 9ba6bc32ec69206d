"""Storages: their content, downloads, disk allocation, and the disks of a virtual machine."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from fluobook_lab.proxmox.model import GIB, Vm, Volume
from fluobook_lab.proxmox.options import (
    NET,
    NEW_DISK,
    TaskError,
    bytes_of,
    failed,
    forbidden,
    invalid,
    parse,
    parse_net,
    render,
    render_net,
    size_of,
    sorted_tags,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook_lab.proxmox.model import Backend, Call, Task

EXTENSIONS = {
    "iso": (".iso", ".img"),
    "import": (".ova", ".ovf", ".qcow2", ".raw", ".vmdk"),
    "vztmpl": (".tar.gz", ".tar.xz", ".tar.zst"),
}
_DIRECTORY = {"iso": "template/iso", "import": "import", "vztmpl": "template/cache"}
_SMALL = 4 * 1024**2
"""Bytes of a TPM or cloud-init disk, and of a firmware disk on LVM."""


def index(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage."""
    inventory, wanted = call.backend.inventory, set(re.findall(r"[^,;\s]+", call.params.get("content", "")))
    for host in (call.node, call.params.get("target", call.node)):
        inventory.host(host)
    if name := call.params.get("storage"):
        inventory.storage(name)
    items = []
    for storage in inventory.storages.values():
        if not _may_see(call, storage.name) or (wanted and wanted.isdisjoint(storage.content)):
            continue
        if call.params.get("storage", storage.name) != storage.name:
            continue
        total, free = storage.size_gib * GIB, _free(call.backend, call.node, storage.name)
        items.append(
            {
                "storage": storage.name,
                "type": storage.type,
                "content": ",".join(sorted(storage.content)),
                "shared": int(storage.shared),
                "active": 1,
                "enabled": 1,
                "total": total,
                "used": total - free,
                "avail": free,
                "used_fraction": (total - free) / total,
            }
        )
    return items


def content(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage/{storage}/content."""
    call.backend.inventory.host(call.node)
    storage, content_type = call.path["storage"], call.params.get("content", "")
    volumes = call.backend.inventory.volumes(call.node, storage).values()
    if not _may_see(call, storage):
        raise forbidden(f"/storage/{storage}", "Datastore.Audit", "Datastore.AllocateSpace")
    vmid = int(call.params.get("vmid", 0))
    return [
        _listed(volume)
        for volume in sorted(volumes, key=lambda volume: volume.volid)
        if content_type in ("", volume.content) and vmid in (0, volume.vmid)
    ]


def _listed(volume: Volume) -> dict[str, Any]:
    file = volume.volid.rpartition("/")[2]
    kind = file.rpartition(".")[2] if "." in file else "raw"
    shown: dict[str, Any] = {"volid": volume.volid, "content": volume.content, "format": kind, "size": volume.size}
    return shown | ({"vmid": volume.vmid} if volume.vmid else {"ctime": 1_700_000_000})


def _may_see(call: Call, storage: str) -> bool:
    path = f"/storage/{storage}"
    return call.token.may(path, "Datastore.Audit") or call.token.may(path, "Datastore.AllocateSpace")


def query_url(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/query-url-metadata."""
    url = call.params["url"]
    size = call.backend.images(url)
    if size is None:
        raise failed("invalid server response: '404 Not Found'")
    return {"filename": url.rpartition("/")[2], "size": size, "mimetype": "application/octet-stream"}


def download(call: Call) -> str:
    """POST …/download-url: a worker that fetches the file; it fails if the file exists."""
    inventory, params, token = call.backend.inventory, call.params, call.token
    storage = inventory.storage(call.path["storage"])
    token.need(f"/storage/{storage.name}", "Datastore.AllocateTemplate")
    if not (token.may("/", "Sys.Audit", "Sys.Modify") or token.may(f"/nodes/{call.node}", "Sys.AccessNetwork")):
        raise forbidden()
    inventory.host(call.node)
    kind, filename = params["content"], re.sub(r"[^-a-zA-Z0-9_.]", "_", params["filename"])
    if storage.type != "dir":
        raise failed(f"can't upload to storage type '{storage.type}', not a file based storage!")
    if kind not in storage.content:
        raise failed(f"storage '{storage.name}' is not configured for content-type '{kind}'")
    if not filename.endswith(EXTENSIONS.get(kind, ())):
        raise invalid(filename="wrong file extension")
    volume = Volume(f"{storage.name}:{kind}/{filename}", kind, 0)

    async def work(task: Task) -> None:
        await _fetch(call, storage.name, volume, task)

    return call.backend.tasks.fork(call.node, "download", filename, token.id, work)


async def _fetch(call: Call, storage: str, volume: Volume, task: Task) -> None:
    backend, url = call.backend, call.params["url"]
    target = f"/var/lib/vz/{_DIRECTORY[volume.content]}/{volume.volid.rpartition('/')[2]}"
    task.log += [f"downloading {url} to {target}", f"--{task.start}--  {url}"]
    if volume.volid in backend.inventory.volumes(call.node, storage):
        raise TaskError(f"refusing to override existing file '{target}'")
    size = backend.images(url)
    if size is None:
        task.log.append("HTTP request sent, awaiting response... 404 Not Found")
        raise TaskError(f"download failed: wget -O {target}.tmp {url}: exit code 8")
    await backend.clock.sleep(backend.durations.download)
    if backend.faults.take("proxmox.download-fails"):
        task.log.append("Read error at byte 104857600 (Connection reset by peer). Giving up.")
        raise TaskError(f"download failed: wget -O {target}.tmp {url}: exit code 4")
    if size > _free(backend, call.node, storage):
        task.log.append(f"{target}.tmp: No space left on device")
        raise TaskError(f"download failed: wget -O {target}.tmp {url}: exit code 3: No space left on device")
    volume.size = size
    backend.inventory.volumes(call.node, storage)[volume.volid] = volume
    task.log += [f"{size} bytes received", f"download of '{url}' to '{target}' finished"]


def _free(backend: Backend, host: str, storage: str) -> int:
    return 0 if backend.faults.on("proxmox.storage-full") else backend.inventory.free(host, storage)


async def _allocate(backend: Backend, vm: Vm, storage: str, size: int) -> Volume:
    """Create a disk of `size` bytes; a storage creates one disk at a time."""
    inventory = backend.inventory
    async with inventory.storage_lock(vm.host, storage):
        await backend.clock.sleep(backend.durations.allocate)
        volid = inventory.free_disk_name(vm.host, storage, vm.vmid)
        if not _free(backend, vm.host, storage):
            raise TaskError(_no_space(inventory.storage(storage).type, volid.partition(":")[2]))
        if not size:
            raise TaskError(f"lvcreate 'pve/{volid.partition(':')[2]}' error:   Invalid argument for --virtualsize: 0k")
        volume = Volume(volid, "images", size, vm.vmid)
        inventory.volumes(vm.host, storage)[volid] = volume
        return volume


def _no_space(storage_type: str, name: str) -> str:
    if storage_type == "lvmthin":
        reason = "free space in thin pool pve/data reached threshold."
        return f"lvcreate 'pve/{name}' error:   Cannot create new thin volume, {reason}"
    file = f"/var/lib/vz/images/{name}"
    return f"unable to create image: qemu-img: {file}: Could not resize file: No space left on device"


def find_volume(backend: Backend, host: str, volid: str) -> Volume | None:
    """The volume with that id on a host; None if it does not exist."""
    storage = volid.partition(":")[0]
    return backend.inventory.volumes(host, storage).get(volid) if storage in backend.inventory.storages else None


def delete_disks(backend: Backend, host: str, vmid: int, *, config: Mapping[str, str] | None = None) -> None:
    """Delete the disks that carry a VM's number; with `config` those alone that stand in it."""
    named = None if config is None else {value.partition(",")[0] for value in config.values()}
    for storage in backend.inventory.storages:
        volumes = backend.inventory.volumes(host, storage)
        for volid in [
            volid for volid, volume in volumes.items() if volume.vmid == vmid and (named is None or volid in named)
        ]:
            del volumes[volid]


def grown_size(current: str, requested: str) -> int:
    """The size in bytes after a resize from `current` (as `20G`) to `requested` (`40G`, or `+20G`).

    Raises:
        PveError: the requested size is not a size.
        TaskError: the disk would shrink.
    """
    old = bytes_of(current)
    new = old + bytes_of(requested[1:]) if requested.startswith("+") else bytes_of(requested)
    if new < old:
        raise TaskError("shrinking disks is not supported")
    return new


def stored_options(backend: Backend, options: dict[str, str]) -> dict[str, str]:
    """Options in the form in which Proxmox VE stores them: with MAC addresses, tags sorted."""
    stored = dict(options)
    for name, value in options.items():
        if NET.fullmatch(name):
            model, mac, rest = parse_net(value)
            stored[name] = render_net(model, mac or _new_mac(backend), rest)
    if "tags" in stored:
        stored["tags"] = sorted_tags(stored["tags"])
    return stored


def new_uuid(backend: Backend) -> str:
    """A random uuid, for options that Proxmox VE generates."""
    return str(uuid.UUID(int=backend.random.getrandbits(128), version=4))


def _new_mac(backend: Backend) -> str:
    while True:
        mac = "BC:24:11:{:02X}:{:02X}:{:02X}".format(*backend.random.randbytes(3))
        if mac not in backend.inventory.macs():
            return mac


async def attach_disk(backend: Backend, vm: Vm, name: str, value: str) -> str:
    """Create, import or find the disk that an option's value describes, and return the value to store.

    Raises:
        TaskError: the volume does not exist, or the storage is full.
    """
    drive, inventory = parse(value, "file"), backend.inventory
    drive.pop("format", None)
    source, file = drive.pop("import-from", ""), drive["file"]
    if file in {"none", "cdrom"}:
        return render(drive, "file")
    if file.endswith(":cloudinit"):
        storage = file.partition(":")[0]
        disk = f"vm-{vm.vmid}-cloudinit"
        directory = inventory.storage(storage).type == "dir"
        volid = f"{storage}:{vm.vmid}/{disk}.qcow2" if directory else f"{storage}:{disk}"
        inventory.volumes(vm.host, storage)[volid] = Volume(volid, "images", _SMALL, vm.vmid)
        return render(drive | {"file": volid, "media": "cdrom"}, "file")
    new = NEW_DISK.fullmatch(file)
    if new is None:
        volume = find_volume(backend, vm.host, file)
        if volume is None:
            raise TaskError(f"volume {file} does not exist")
        return render(drive | {"size": size_of(volume.size)}, "file")
    storage, size = new["storage"], int(float(new["gib"]) * GIB)
    if name.startswith("tpmstate"):
        size = _SMALL
    elif name.startswith("efidisk"):
        size = _SMALL if inventory.storage(storage).type == "lvmthin" else 528 * 1024
    if source:
        image = find_volume(backend, vm.host, source)
        if image is None:
            raise TaskError(f"cannot import from '{source}' - volume {source} does not exist")
        size = image.size
    volume = await _allocate(backend, vm, storage, size)
    return render(drive | {"file": volume.volid, "size": size_of(size)}, "file")
