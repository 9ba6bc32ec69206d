"""The operators' lock: a Lease in kube-system that is held by the operator who changes the cluster."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from fluobook.clients.https import DEADLINE
from fluobook.clients.kube.client import Kube
from fluobook.errors import Conflict, Locked, OutsideError

API_VERSION, KIND = "coordination.k8s.io/v1", "Lease"
NAME, NAMESPACE = "fluobook", "kube-system"
SECONDS = 30
"""Seconds for which a lease is valid without renewal: a killed run blocks others for no longer."""
LONGEST = 86_400
RENEWALS = 3
"""Renewals within that time."""


@dataclass(frozen=True)
class Holder:
    """Who holds the lease, since when, and when it was last renewed."""

    identity: str
    since: dt.datetime | None
    renewed: dt.datetime | None
    seconds: int

    def is_over(self, now: dt.datetime) -> bool:
        """Whether the lease was released, or not renewed in time; the operators' clocks should agree within seconds."""
        if not self.identity or self.renewed is None:
            return True
        return self.renewed + dt.timedelta(seconds=self.seconds) < now


class OperatorLease:
    """Acquires, renews and releases the lease.

    Args:
        kube: the cluster.
        identity: our name, so that another operator can find us: "ann@laptop/4711".
        seconds: seconds for which it is valid without renewal.
    """

    def __init__(self, kube: Kube, identity: str, *, seconds: int = SECONDS) -> None:
        self._kube = kube
        self._identity = identity
        self._seconds = seconds
        self._stop = threading.Event()
        self.lost: OutsideError | Locked | None = None
        """Why the last renewal failed; None if it succeeded."""

    def holder(self) -> Holder | None:
        """Who holds it now, None if nobody ever held it.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        lease = self._kube.find(API_VERSION, KIND, NAME, NAMESPACE)
        return _holder(lease) if lease else None

    def acquire(self) -> None:
        """Acquire the lease, or renew it.

        Raises:
            Locked: somebody else holds it.
            OutsideError: no answer, or a refusal.
        """
        lease = self._kube.find(API_VERSION, KIND, NAME, NAMESPACE)
        if lease and not self._may_take(held := _holder(lease)):
            raise _locked(held)
        try:
            if lease is None:
                self._kube.create(self._wanted({}))
            else:
                self._kube.replace({**self._wanted(lease.get("spec") or {}), "metadata": lease["metadata"]})
        except Conflict:
            raise _locked(self.holder() or Holder("another operator", None, None, 0)) from None

    renew = acquire

    def check(self) -> None:
        """Whether work may continue: only a new holder is a reason to stop, a renewal without an answer is not.

        Raises:
            Locked: another operator has acquired the lease, because it was not renewed in time.
        """
        if isinstance(self.lost, Locked):
            raise self.lost

    def release(self) -> None:
        """Release it, if we hold it.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        self._stop.set()
        lease = self._kube.find(API_VERSION, KIND, NAME, NAMESPACE)
        if lease and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
            spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
            try:
                self._kube.replace({**lease, "spec": spec})
            except Conflict:
                return  # somebody else acquired it meanwhile

    @contextmanager
    def held(self) -> Iterator[OperatorLease]:
        """Hold it during a block, renewed in the background; if it is lost meanwhile, `lost` has the reason.

        A failed release is no error, since the lease expires by itself; the block may just have restarted the only
        control plane.

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
            thread.join(2 * DEADLINE)  # a renewal in progress ends by then

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
            "leaseTransitions": (old.get("leaseTransitions") or 0) + (bool(old) and not same),
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
        try:
            return dt.datetime.fromisoformat(spec[key]) if spec.get(key) else None
        except ValueError:
            return None  # the 30th of February

    seconds = min(spec.get("leaseDurationSeconds") or 0, LONGEST)
    return Holder(spec.get("holderIdentity") or "", time("acquireTime"), time("renewTime"), seconds)


def _locked(held: Holder) -> Locked:
    since = f" since {held.since:%H:%M:%S} UTC" if held.since else ""
    return Locked(
        f"{held.identity} holds the lock on this cluster{since}",
        cause="two operators at once would revert each other's changes",
        remedy=f"wait until it ends; after a crash the lock is free within {held.seconds or SECONDS} s",
    )
