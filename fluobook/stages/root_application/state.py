"""An Application as Argo CD tells it, as far as its being well or stuck is concerned. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.gitops.application import WAVE

if TYPE_CHECKING:
    from collections.abc import Mapping

API, KIND = "argoproj.io/v1alpha1", "Application"
FAILED = ("Failed", "Error")


@dataclass(frozen=True)
class State:
    """What an Application says of itself.

    Args:
        name: its name.
        wave: its sync wave.
        sync: Synced, OutOfSync or Unknown; "" before it was looked at.
        health: Healthy, Progressing, Degraded…; "" before.
        operation: phase of its last operation; "" if there was none.
        started: when that began.
        operated: the revision that it was about.
        message: what the operation says.
        revision: what it was last compared with.
        up_to_date: whether that comparison was with its present source.
        errors: what its conditions complain of.
        repo: where its source is.
        wanted: the revision that its source asks for.
    """

    name: str
    wave: int
    sync: str
    health: str
    operation: str
    started: str
    operated: str
    message: str
    revision: str
    up_to_date: bool
    errors: tuple[str, ...]
    repo: str
    wanted: str

    @property
    def well(self) -> bool:
        """Whether it is Synced and Healthy, and its last operation, if it needed one, succeeded."""
        return (
            self.up_to_date
            and (self.sync, self.health) == ("Synced", "Healthy")
            and self.operation in ("Succeeded", "")
        )

    @property
    def failed(self) -> bool:
        """Whether its operation came to a bad end: Argo CD does not try the same revision again by itself."""
        return self.operation in FAILED

    def words(self) -> str:
        """Where it stands, in a few words: "OutOfSync, Progressing: waiting for healthy state of …"."""
        if not self.sync:
            return "not looked at yet"
        told = ", ".join(filter(None, (self.sync, self.health)))
        why = self.errors[0] if self.errors else self.message if self.operation not in ("Succeeded", "") else ""
        return f"{told}: {why}" if why else told


def state_of(obj: Mapping[str, Any]) -> State:
    """Read an Application."""
    spec, status = obj["spec"], obj.get("status") or {}
    sync, operation = status.get("sync") or {}, status.get("operationState") or {}
    source, compared = spec.get("source") or {}, (sync.get("comparedTo") or {}).get("source")
    return State(
        name=obj["metadata"]["name"],
        wave=int((obj["metadata"].get("annotations") or {}).get(WAVE, "0")),
        sync=sync.get("status", ""),
        health=(status.get("health") or {}).get("status", ""),
        operation=operation.get("phase", ""),
        started=operation.get("startedAt", ""),
        operated=(operation.get("syncResult") or {}).get("revision", ""),
        message=operation.get("message", ""),
        revision=sync.get("revision", ""),
        up_to_date=compared is None or compared == source,
        errors=tuple(one["message"] for one in status.get("conditions") or () if one["type"].endswith("Error")),
        repo=source.get("repoURL", ""),
        wanted=str(source.get("targetRevision", "")),
    )
