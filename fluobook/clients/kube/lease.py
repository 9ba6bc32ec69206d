"""One operator at a time: a Lease in kube-system that whoever changes the cluster holds."""

from __future__ import annotations

import datetime as dt
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.clients.kube.connection import CONNECT_SECONDS, READ_SECONDS
from fluobook.errors import Conflict, Locked, OutsideError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.clients.kube.client import Kube

API_VERSION, KIND = "coordination.k8s.io/v1", "Lease"
NAME, NAMESPACE = "fluobook", "kube-system"
SECONDS = 30
"""How long a lease is good that is not renewed: a killed run keeps others out for no longer."""
RENEWALS = 3
"""Renewals in that time."""


@dataclass(frozen=True)
class Holder:
    """Who holds the lease, since when, and when it was last renewed."""

    identity: str
    since: dt.datetime | None
    renewed: dt.datetime | None
    seconds: int

    def is_over(self, now: dt.datetime) -> bool:
        """Whether the lease was given back, or not renewed in time; the operators' clocks should agree on seconds."""
        if not self.identity or self.renewed is None:
            return True
        return self.renewed + dt.timedelta(seconds=self.seconds) < now


class OperatorLease:
    """Takes, renews and gives back the lease.

    Args:
        kube: the cluster.
        identity: who we are, so that another operator can find us: "ann@laptop/4711".
        seconds: how long it is good without being renewed.
    """

    def __init__(self, kube: Kube, identity: str, *, seconds: int = SECONDS) -> None:
        self._kube = kube
        self._identity = identity
        self._seconds = seconds
        self._stop = threading.Event()
        self.lost: OutsideError | Locked | None = None
        """Why the last renewal failed; None while all is well."""

    def holder(self) -> Holder | None:
        """Who holds it now, None if nobody ever did.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        found = self._kube.find(API_VERSION, KIND, NAME, NAMESPACE)
        return _holder(found) if found else None

    def acquire(self) -> None:
        """Take the lease; taking it again renews it.

        Raises:
            Locked: somebody else holds it.
            OutsideError: no answer, or a refusal.
        """
        found = self._kube.find(API_VERSION, KIND, NAME, NAMESPACE)
        if found and not self._may_take(held := _holder(found)):
            raise _locked(held)
        try:
            if found is None:
                self._kube.create(self._wanted({}))
            else:
                self._kube.replace({**self._wanted(found.get("spec") or {}), "metadata": found["metadata"]})
        except Conflict:
            raise _locked(self.holder() or Holder("another operator", None, None, 0)) from None

    renew = acquire

    def check(self) -> None:
        """Whether work may go on; that the API did not answer a renewal is no reason to stop, a new holder is.

        Raises:
            Locked: another operator has taken the lease, since we did not renew it in time.
        """
        if isinstance(self.lost, Locked):
            raise self.lost

    def release(self) -> None:
        """Give it back, if it is ours.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        self._stop.set()
        found = self._kube.find(API_VERSION, KIND, NAME, NAMESPACE)
        if found and (found.get("spec") or {}).get("holderIdentity") == self._identity:
            spec = {**found["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
            try:
                self._kube.replace({**found, "spec": spec})
            except Conflict:
                return  # somebody took it in between: then it is not ours to give

    @contextmanager
    def held(self) -> Iterator[OperatorLease]:
        """Hold it for the length of a block, renewed in the background; `lost` says why, if it got lost meanwhile.

        That it cannot be given back is no error: what was to be done is done, and it runs out by itself. So it is when
        the block has just restarted the only control plane.

        Raises:
            Locked: somebody else holds it.
            OutsideError: no answer, or a refusal.
        """
        self._stop.clear()
        self.acquire()
        thread = threading.Thread(target=self._keep, name="operator lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            with suppress(OutsideError):
                self.release()
            thread.join(CONNECT_SECONDS + READ_SECONDS)  # a renewal under way ends by then

    def _keep(self) -> None:
        while not (self._stop.wait(self._seconds / RENEWALS) or isinstance(self.lost, Locked)):
            try:
                self.renew()
                self.lost = None
            except (OutsideError, Locked) as error:
                self.lost = error

    def _may_take(self, held: Holder) -> bool:
        return held.identity == self._identity or held.is_over(dt.datetime.now(dt.UTC))

    def _wanted(self, old: dict[str, Any]) -> dict[str, Any]:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same = old.get("holderIdentity") == self._identity
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._seconds,
            "acquireTime": old.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": old.get("leaseTransitions", 0) + (bool(old) and not same),
        }
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": spec,
        }


def _holder(lease: dict[str, Any]) -> Holder:
    spec = lease.get("spec") or {}

    def time(key: str) -> dt.datetime | None:
        return dt.datetime.fromisoformat(spec[key]) if spec.get(key) else None

    return Holder(
        spec.get("holderIdentity") or "", time("acquireTime"), time("renewTime"), spec.get("leaseDurationSeconds", 0)
    )


def _locked(held: Holder) -> Locked:
    since = f" since {held.since:%H:%M:%S} UTC" if held.since else ""
    return Locked(
        f"{held.identity} holds the lock on this cluster{since}",
        cause="two operators at once would undo each other's work",
        remedy=f"wait for its end; after a crash the lease is free within {held.seconds or SECONDS} s",
    )
