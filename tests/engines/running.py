"""Processes of a lab, and where they listen: read from /proc, so without any tool."""

from __future__ import annotations

from pathlib import Path

LISTENING = "0A"
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
HOST = Path("/proc/self/ns/net")


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
            text = stat.read_text()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(text.rpartition(")")[2].split()[1])
    processes = [pid]
    for process in processes:
        processes += [child for child, parent in parents.items() if parent == process]
    return processes


def listening(pid: int) -> list[str]:
    """The addresses that a process listens on, in whichever network it is."""
    own = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").glob("*") if fd.is_symlink()}
    rows = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
    ]
    return [r[1].partition(":")[0] for r in rows if r[3:4] == [LISTENING] and f"socket:[{r[9]}]" in own]


def alone(pid: int) -> bool:
    """Whether a process is in a network of its own, in which there is nothing but a loopback."""
    if Path(f"/proc/{pid}/ns/net").readlink() == HOST.readlink():
        return False
    devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in devices] == ["lo"]
