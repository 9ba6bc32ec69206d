"""The verdict on one object, and which of two is worse."""

from __future__ import annotations

from dataclasses import dataclass

ORDER = ("Healthy", "Suspended", "Progressing", "Missing", "Degraded", "Unknown")
"""From best to worst; an Application is as well as the worst of its objects."""


@dataclass(frozen=True)
class Health:
    """A status of `ORDER`, and why."""

    status: str
    message: str = ""

    def worse_than(self, other: Health) -> bool:
        """Whether this is the one to show of the two."""
        return ORDER.index(self.status) > ORDER.index(other.status)


HEALTHY = Health("Healthy")
