"""Nothing of the engine listens outside loopback, and nothing of it is left when its lab has ended."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fluobook.lab import life

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engines.conftest import RealLab

LISTENING = "0A"
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
HOST = Path("/proc/self/ns/net")


@pytest.fixture(scope="module")
def lab(real_labs: Callable[[], RealLab]) -> RealLab:
    lab = real_labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes")
    return lab


def test_programs_listen_on_loopback_alone(lab: RealLab) -> None:
    programs = family(lab.lab.pid)
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in programs}
    assert {"etcd", "kube-apiserver", "kwok"} <= names
    heard = [address for pid in programs for address in listening(pid)]
    assert heard
    assert [address for address in heard if address not in LOOPBACK] == []


def test_a_lab_that_is_killed_leaves_no_program_behind(real_labs: Callable[[], RealLab]) -> None:
    lab = real_labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes")
    programs = [pid for pid in family(lab.lab.pid) if pid != lab.lab.pid]
    assert programs
    os.kill(lab.lab.pid, 9)
    until = time.monotonic() + 30
    while (left := [pid for pid in programs if lives(pid)]) and time.monotonic() < until:
        time.sleep(0.1)
    life.end(lab.lab, forget=True)
    assert left == []


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def family(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = stat.read_text()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(told.rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def listening(pid: int) -> list[str]:
    """The addresses that a process listens on in the machine's own network."""
    if Path(f"/proc/{pid}/ns/net").readlink() != HOST.readlink():
        return []
    own = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").glob("*") if fd.is_symlink()}
    rows = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
    ]
    return [r[1].partition(":")[0] for r in rows if r[3:4] == [LISTENING] and f"socket:[{r[9]}]" in own]
