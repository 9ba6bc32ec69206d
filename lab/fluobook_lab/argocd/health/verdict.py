"""The verdict on one object, and which of two is worse."""

from __future__ import annotations

from dataclasses import dataclass

from fluobook.kubernetes.health_scripts import STATUSES


@dataclass(frozen=True)
class Health:
    """A status of `STATUSES`, and why."""

    status: str
    message: str = ""

    def worse_than(self, other: Health) -> bool:
        """Whether this is the one to show of the two."""
        return STATUSES.index(self.status) > STATUSES.index(other.status)


HEALTHY = Health("Healthy")
