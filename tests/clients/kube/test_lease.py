"""The operators' lease: one at a time, free again after a crash."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.clients.kube import OperatorLease
from fluobook.errors import Locked, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.lab

LEASE = ("coordination.k8s.io/v1", "Lease", "fluobook", "kube-system")


@pytest.fixture
def rig(kubernetes: Callable[..., Any]) -> Any:
    return kubernetes(controllers=False)


def test_the_second_operator_gets_the_name_of_the_first(rig: Any) -> None:
    with OperatorLease(rig.kube, "ann@laptop/1").held(), pytest.raises(Locked) as refused:
        OperatorLease(rig.kube, "bob@desk/2").acquire()
    assert refused.value.message.startswith("ann@laptop/1 holds the lock on this cluster since")
    OperatorLease(rig.kube, "bob@desk/2").acquire()


def test_taking_it_again_renews_it(rig: Any) -> None:
    lease = OperatorLease(rig.kube, "ann")
    lease.acquire()
    first = rig.kube.get(*LEASE)["spec"]
    lease.renew()
    second = rig.kube.get(*LEASE)["spec"]
    assert second["renewTime"] > first["renewTime"]
    assert second["acquireTime"] == first["acquireTime"]


def test_a_lease_that_nobody_renews_is_free(rig: Any) -> None:
    OperatorLease(rig.kube, "ann").acquire()
    before = (dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    rig.kube.patch(*LEASE, body={"spec": {"renewTime": before}})
    OperatorLease(rig.kube, "bob").acquire()
    spec = rig.kube.get(*LEASE)["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("bob", 1)


def test_giving_back_what_is_somebody_elses_does_nothing(rig: Any) -> None:
    OperatorLease(rig.kube, "ann").acquire()
    OperatorLease(rig.kube, "bob").release()
    assert OperatorLease(rig.kube, "bob").holder().identity == "ann"  # type: ignore[union-attr]


def test_a_holder_learns_that_it_lost_the_lease(rig: Any) -> None:
    with OperatorLease(rig.kube, "ann", seconds=1).held() as lease:
        body = {"spec": {"holderIdentity": "bob", "leaseDurationSeconds": 600}}
        rig.kube.patch(*LEASE, body=body)
        assert isinstance(rig.until(lambda: lease.lost), Locked)
        with pytest.raises(Locked, match="bob holds the lock"):
            lease.check()


def test_a_renewal_without_an_answer_is_no_reason_to_stop(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with OperatorLease(rig.kube, "ann", seconds=1).held() as lease:
        with monkeypatch.context() as broken:
            broken.setattr(rig.kube, "find", _silent)
            assert isinstance(rig.until(lambda: lease.lost), Unreachable)
            lease.check()
        rig.until(lambda: lease.lost is None)


def test_work_is_done_even_if_the_lease_cannot_be_given_back(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = OperatorLease(rig.kube, "ann")
    done = []
    with lease.held():
        monkeypatch.setattr(rig.kube, "find", _silent)
        done.append("work")
    assert done == ["work"]


def _silent(*_: object) -> None:
    raise Unreachable("the control plane restarts", system="kubernetes")
