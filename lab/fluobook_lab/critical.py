"""The critical path of what happened in a lab: the longest chain of work that had to follow each other.

It is made of the work alone, in world seconds, without anybody's waiting or polling: how fast the job could have been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fluobook_lab.proxmox.model import Task
    from fluobook_lab.talos import Delays


@dataclass(frozen=True)
class Step:
    """One link of the chain, and how many world seconds it took."""

    name: str
    seconds: float


def virtual_machines(tasks: Iterable[Task], delays: Delays) -> Sequence[Step]:
    """The longest chain from an image to a machine that answers; empty when no machine was made.

    Args:
        tasks: all tasks of all endpoints.
        delays: what booting takes.
    """
    done = [task for task in tasks if task.exit]
    downloads = [Step(f"download on {task.node}", task.ended - task.began) for task in _of(done, "download")]
    download = max(downloads, key=_seconds, default=None)
    chains = []
    for create in _of(done, "qmcreate"):
        start = next((task for task in _of(done, "qmstart") if task.id == create.id and task.exit == "OK"), None)
        if start is None:
            continue
        chain = [Step(f"create VM {create.id}", create.ended - create.began)]
        chain += [Step(f"start VM {create.id}", start.ended - start.began), Step("boot Talos", delays.boot)]
        chains.append(([download] if download else []) + chain)
    return max(chains, key=lambda chain: sum(map(_seconds, chain)), default=[])


def machine_configuration(delays: Delays) -> Sequence[Step]:
    """From an accepted configuration to a node that runs it."""
    return [
        Step("leave maintenance", delays.leave),
        Step("install Talos", delays.install),
        Step("restart from disk", delays.reboot),
    ]


def _of(tasks: Iterable[Task], kind: str) -> list[Task]:
    return [task for task in tasks if task.type == kind]


def _seconds(step: Step) -> float:
    return step.seconds
