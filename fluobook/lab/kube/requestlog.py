"""What was asked of the server: how tests and rehearsals see that a second run changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

_REVIEWS = ("reviews", "token")


@dataclass(frozen=True)
class Request:
    """One request; `time` is world seconds, `mutating` is whether it meant to change something."""

    time: float
    method: str
    path: str
    status: int
    mutating: bool
    user_agent: str


def is_mutating(method: str, path: str, *, dry_run: bool) -> bool:
    """Whether a request changes the cluster; reviews and dry runs only ask."""
    return method not in ("GET", "HEAD") and not dry_run and not path.endswith(_REVIEWS)
