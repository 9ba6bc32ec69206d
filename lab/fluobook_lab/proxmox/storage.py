"""Storages: what is on them, downloads to them, disks allocated on them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fluobook_lab.proxmox.errors import TaskError, absent, died, forbidden, wrong
from fluobook_lab.proxmox.options import bytes_of
from fluobook_lab.proxmox.site import GIB, Volume

if TYPE_CHECKING:
    from fluobook_lab.proxmox.context import Call, World
    from fluobook_lab.proxmox.tasks import Task

EXTENSIONS = {
    "iso": (".iso", ".img"),
    "import": (".ova", ".ovf", ".qcow2", ".raw", ".vmdk"),
    "vztmpl": (".tar.gz", ".tar.xz", ".tar.zst"),
}
EFI_SIZE = {"dir": 528 * 1024, "lvmthin": 4 * 1024**2}
TPM_SIZE = 4 * 1024**2
_DIRECTORY = {"iso": "template/iso", "import": "import", "vztmpl": "template/cache"}


def index(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage."""
    world = call.world
    world.site.host(call.node)
    wanted = call.params.get("content", "")
    shown = [name for name in world.site.storages if _may_see(call, name)]
    return [status(call, name) for name in shown if not wanted or wanted in world.site.storage(name).content]


def status(call: Call, name: str = "") -> dict[str, Any]:
    """GET /nodes/{node}/storage/{storage}/status; an item of the index if a name is given."""
    site = call.world.site
    site.host(call.node)
    storage = site.storage(name or call.path["storage"])
    if not _may_see(call, storage.name):
        raise forbidden(f"/storage/{storage.name}", "Datastore.Audit", "Datastore.AllocateSpace")
    total, free = storage.size_gib * GIB, _free(call.world, call.node, storage.name)
    return ({"storage": name} if name else {}) | {
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


def content(call: Call) -> list[dict[str, Any]]:
    """GET …/content."""
    site = call.world.site
    site.host(call.node)
    storage, wanted = call.path["storage"], call.params.get("content", "")
    volumes = site.volumes(call.node, storage).values()
    if not _may_see(call, storage):
        raise forbidden(f"/storage/{storage}", "Datastore.Audit", "Datastore.AllocateSpace")
    return [_listed(volume) for volume in sorted(volumes, key=lambda v: v.volid) if wanted in ("", volume.content)]


def _listed(volume: Volume) -> dict[str, Any]:
    kind = volume.volid.rpartition(".")[2] if "." in volume.volid.rpartition("/")[2] else "raw"
    shown: dict[str, Any] = {"volid": volume.volid, "content": volume.content, "format": kind, "size": volume.size}
    return shown | ({"vmid": volume.vmid} if volume.vmid else {"ctime": 1_700_000_000})


def _may_see(call: Call, storage: str) -> bool:
    path = f"/storage/{storage}"
    return call.token.may(path, "Datastore.Audit") or call.token.may(path, "Datastore.AllocateSpace")


def _may_reach_network(call: Call) -> bool:
    old = call.token.may("/", "Sys.Audit", "Sys.Modify")
    return old or call.token.may(f"/nodes/{call.node}", "Sys.AccessNetwork")


def query_url(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/query-url-metadata."""
    if not _may_reach_network(call):
        raise forbidden()
    call.world.site.host(call.node)
    url = call.params.get("url", "")
    size = call.world.images(url)
    if size is None:
        raise died("invalid server response: '404 Not Found'")
    return {"filename": url.rpartition("/")[2], "size": size, "mimetype": "application/octet-stream"}


def download(call: Call) -> str:
    """POST …/download-url: a worker that fetches the file; one that exists already makes it fail."""
    site, params = call.world.site, call.params
    storage = site.storage(call.path["storage"])
    call.token.need(f"/storage/{storage.name}", "Datastore.AllocateTemplate")
    if not _may_reach_network(call):
        raise forbidden()
    site.host(call.node)
    if missing := [name for name in ("content", "filename", "url") if not params.get(name)]:
        raise absent(*missing)
    kind, filename = params["content"], re.sub(r"[^-a-zA-Z0-9_.]", "_", params["filename"])
    if storage.type != "dir":
        raise died(f"can't upload to storage type '{storage.type}', not a file based storage!")
    if kind not in storage.content:
        raise died(f"storage '{storage.name}' is not configured for content-type '{kind}'")
    if not filename.endswith(EXTENSIONS.get(kind, ())):
        raise wrong(filename="wrong file extension")
    volume = Volume(f"{storage.name}:{kind}/{filename}", kind, 0)

    async def work(task: Task) -> None:
        await _fetch(call, storage.name, volume, task)

    return call.world.tasks.fork(call.node, "download", filename, call.token.id, work)


async def _fetch(call: Call, storage: str, volume: Volume, task: Task) -> None:
    world, url = call.world, call.params["url"]
    target = f"/var/lib/vz/{_DIRECTORY[volume.content]}/{volume.volid.rpartition('/')[2]}"
    task.log += [f"downloading {url} to {target}", f"--{task.start}--  {url}"]
    if volume.volid in world.site.volumes(call.node, storage):
        raise TaskError(f"refusing to override existing file '{target}'")
    size = world.images(url)
    if size is None:
        task.log.append("HTTP request sent, awaiting response... 404 Not Found")
        raise TaskError(f"download failed: wget -O {target}.tmp {url}: exit code 8")
    await world.clock.sleep(world.durations.download)
    if world.faults.take("proxmox.download-fails"):
        task.log.append("Read error at byte 104857600 (Connection reset by peer). Giving up.")
        raise TaskError(f"download failed: wget -O {target}.tmp {url}: exit code 4")
    if size > _free(world, call.node, storage):
        task.log.append(f"{target}.tmp: No space left on device")
        raise TaskError(f"download failed: wget -O {target}.tmp {url}: exit code 3: No space left on device")
    volume.size = size
    world.site.volumes(call.node, storage)[volume.volid] = volume
    task.log += [f"{size} bytes received", f"download of '{url}' to '{target}' finished"]


def _free(world: World, host: str, storage: str) -> int:
    return 0 if world.faults.on("proxmox.storage-full") else world.site.free(host, storage)


async def allocate(world: World, host: str, storage: str, vmid: int, size: int) -> Volume:
    """Make a disk of a size in bytes, one at a time for each storage.

    Raises:
        TaskError: the storage is full.
    """
    async with world.site.storage_lock(host, storage):
        await world.clock.sleep(world.durations.allocate)
        volid = world.site.free_disk_name(host, storage, vmid)
        if not _free(world, host, storage):
            raise TaskError(_full(world.site.storage(storage).type, volid))
        volume = Volume(volid, "images", size, vmid)
        world.site.volumes(host, storage)[volid] = volume
        return volume


def _full(type_: str, volid: str) -> str:
    name = volid.partition(":")[2]
    if type_ == "lvmthin":
        return (
            f"lvcreate 'pve/{name}' error:   Cannot create new thin volume, free space in thin pool pve/data "
            "reached threshold."
        )
    return (
        f"unable to create image: qemu-img: /var/lib/vz/images/{name}: Could not resize file: No space left on device"
    )


def special_size(name: str, type_: str) -> int | None:
    """The fixed size of firmware and TPM disks; None for others."""
    bus = name.rstrip("0123456789")
    return {"efidisk": EFI_SIZE.get(type_, EFI_SIZE["dir"]), "tpmstate": TPM_SIZE}.get(bus)


def find(world: World, host: str, volid: str) -> Volume | None:
    """A volume by its id; None if it does not exist there."""
    storage = volid.partition(":")[0]
    return world.site.volumes(host, storage).get(volid) if storage in world.site.storages else None


def release(world: World, host: str, vmid: int) -> None:
    """Delete all disks of a machine."""
    for storage in world.site.storages:
        volumes = world.site.volumes(host, storage)
        for volid in [volid for volid, volume in volumes.items() if volume.vmid == vmid]:
            del volumes[volid]


def grown(current: str, asked: str) -> int:
    """The new size in bytes of a disk that has `current` (as `20G`) and is asked for `asked` (`40G`, `+20G`).

    Raises:
        PveError: what is asked for is no size.
        TaskError: the disk would shrink.
    """
    have = bytes_of(current)
    size = have + bytes_of(asked[1:]) if asked.startswith("+") else bytes_of(asked)
    if size < have:
        raise TaskError("shrinking disks is not supported")
    return size
