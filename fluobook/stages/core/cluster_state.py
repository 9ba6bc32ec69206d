"""Whether the cluster is there to be looked at: the first question of every stage from 5 on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluobook.errors import Unreachable

if TYPE_CHECKING:
    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext


@dataclass(frozen=True)
class Missing:
    """What an earlier stage has not done yet: the stage's name, and what was seen."""

    stage: str
    reason: str


def api(context: RunContext) -> Kube | Missing:
    """The cluster's API if it answers; else what is missing. One request at most.

    Raises:
        Unreachable: another cluster answers there; going on could only do harm.
        AccessDenied: it answers, and does not know us.
    """
    if not context.secrets.has_bundle():
        return Missing("bootstrap-kubernetes", "there is no secrets bundle yet, so there is no cluster")
    try:
        kube = context.kube()
        kube.version()
    except Unreachable as error:
        if "SSL" in error.code or "Certificate" in error.code:
            raise
        return Missing("bootstrap-kubernetes", f"no Kubernetes API answers at {context.platform.api_address}")
    return kube
