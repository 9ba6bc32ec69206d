"""What a virtual machine's disks keep while it is off: an installed Talos, its configuration, etcd's data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from fluobook_lab.talos.etcd import Etcd

GIB = 1024**3


@dataclass
class SystemDisk:
    """The system disk: empty, or with Talos on it.

    `image` is the installer image that was written, `device` the disk it was written to ("/dev/sda"); `config` is the
    STATE partition, `etcd` what EPHEMERAL holds of etcd's data (which cluster it belongs to).
    """

    image: str = ""
    device: str = ""
    config: str = ""
    etcd: Etcd | None = None

    def wipe(self, labels: Collection[str] = ()) -> None:
        """Empty it, or only the partitions of these labels."""
        if not labels:
            self.image, self.device = "", ""
        if not labels or "STATE" in labels:
            self.config = ""
        if not labels or "EPHEMERAL" in labels:
            self.etcd = None


@dataclass(frozen=True)
class Image:
    """What an image or installer name tells: the platform it is for, the schematic and the version."""

    platform: str
    schematic: str
    version: str


@lru_cache
def read_image(name: str) -> Image:
    """Read "factory.talos.dev/nocloud-installer/<schematic>:<version>", or the name of an ISO that has these parts."""
    schematic = re.search(r"[0-9a-f]{64}|(?<![0-9a-f])[0-9a-f]{8,63}(?![0-9a-f])", name)
    version = re.search(r"v?\d+\.\d+\.\d+(-[a-z]+\.\d+)?", name)
    number = version[0].removeprefix("v") if version else ""
    return Image("nocloud" if "nocloud" in name else "metal", schematic[0] if schematic else "", f"v{number}")


def device_name(disk: str) -> str:
    """The device of a Proxmox disk: "scsi0" is "sda", "virtio1" is "vdb"."""
    kind, number = re.fullmatch(r"([a-z]+)(\d+)", disk, re.ASCII).groups()  # type: ignore[union-attr]
    return ("vd" if kind == "virtio" else "sd") + chr(ord("a") + int(number))
