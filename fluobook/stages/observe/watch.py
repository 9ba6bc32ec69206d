"""Tables that follow the cluster while a person watches.

The informer's thread only counts and says that something changed; the cell's own thread draws, twice a second at most.
So a thousand events in a second cost a thousand increments and two tables.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from fluobook.display.live import REPAINTS_PER_SECOND, Live, interactive
from fluobook.errors import NotFound, StageMissing
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.observe import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fluobook.clients.kube import Change, Kube
    from fluobook.context import RunContext
    from fluobook.display.table import Table
    from fluobook.errors import OutsideError

SECONDS = 30.0
"""How long a cell watches unless it is told otherwise."""
SETTLED = 5.0
"""Seconds after which ages are drawn anew although nothing happened."""
SYNCED = 10.0
"""Seconds that the first list may take before an empty table is shown."""


class Draw(Protocol):
    """Makes a table of objects; `now` is given while a person watches."""

    def __call__(self, found: Iterable[Mapping[str, Any]], *, now: datetime | None = None) -> Table:
        """The table."""


class Pulse:
    """What has come in, counted by one thread and looked at by another."""

    def __init__(self) -> None:
        self.events = 0
        self.trouble = ""
        self._changed = threading.Event()

    def beat(self, _change: object = None) -> None:
        """Something changed."""
        self.events += 1
        self.trouble = ""
        if not self._changed.is_set():  # setting it takes a lock
            self._changed.set()

    def lost(self, error: OutsideError) -> None:
        """The connection is lost; the informer goes on trying."""
        self.trouble = error.message
        self._changed.set()

    def drive(self, draw: Callable[[], None], seconds: float) -> None:
        """Draw whenever something changed, for some seconds; a person who has seen enough interrupts the cell."""
        until = time.monotonic() + seconds
        with suppress(KeyboardInterrupt):
            while (left := until - time.monotonic()) > 0:
                self._changed.clear()
                draw()
                time.sleep(min(1 / REPAINTS_PER_SECOND, left))
                self._changed.wait(min(SETTLED, max(0, until - time.monotonic())))

    def notes(self) -> tuple[str, ...]:
        """What is told below a table that somebody watches."""
        return f"{self.events} events", f"connection lost: {self.trouble}" if self.trouble else ""


def cluster(context: RunContext) -> Kube:
    """The cluster's API.

    Raises:
        StageMissing: there is no cluster yet.
    """
    found = api(context)
    if isinstance(found, Missing):
        raise StageMissing(
            f"there is no cluster to look at: {found.reason}", remedy=f"run the stage {found.stage} first"
        )
    return found


def watch_nodes(context: RunContext, *, seconds: float = SECONDS) -> None:
    """Show the cluster's nodes, for some seconds if a person watches."""

    def draw(found: Iterable[Mapping[str, Any]], *, now: datetime | None = None) -> Table:
        return rows.nodes(context.platform, found, now=now)

    follow(cluster(context), "v1", "Node", draw, seconds=seconds)


def watch_csrs(context: RunContext, *, seconds: float = SECONDS) -> None:
    """Show certificate requests and what stage 4 thinks of them."""

    def draw(found: Iterable[Mapping[str, Any]], *, now: datetime | None = None) -> Table:
        return rows.csrs(context.platform, found, now=now)

    follow(cluster(context), "certificates.k8s.io/v1", "CertificateSigningRequest", draw, seconds=seconds)


def watch_applications(context: RunContext, *, seconds: float = SECONDS) -> None:
    """Show Argo CD's Applications, wave by wave.

    Raises:
        StageMissing: Argo CD is not there yet.
    """
    kube = cluster(context)
    try:
        kube.transport.kind("argoproj.io/v1alpha1", "Application")
    except NotFound:
        raise StageMissing("Argo CD is not installed", remedy="run the stage install-argocd first") from None
    follow(kube, "argoproj.io/v1alpha1", "Application", rows.applications, seconds=seconds)


def follow(kube: Kube, api_version: str, kind: str, draw: Draw, *, seconds: float) -> None:
    """Show all objects of a kind: live for some seconds if a person watches, else once."""
    if not interactive():
        found = kube.list(api_version, kind)
        with Live(lambda: draw(found), live=False):
            return
    pulse = Pulse()

    def on_change(change: Change) -> None:
        pulse.beat(change)

    informer = kube.inform(api_version, kind, on_change, on_error=pulse.lost)
    try:
        informer.synced.wait(min(SYNCED, seconds))

        def table() -> Table:
            return rows.with_note(draw(informer.items(), now=datetime.now(UTC)), *pulse.notes())

        with Live(table, live=True) as live:
            pulse.drive(live.paint, seconds)
    finally:
        informer.stop()
