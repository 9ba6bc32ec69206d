"""What expires, and the renewal of the files of access."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.files import write_text
from fluobook.machine import access
from fluobook.stages.day_two import expiry
from fluobook.stages.day_two.expiry import Expiring

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def item(kind: str, days: float | None, problem: str = "", **more: Any) -> Expiring:
    return Expiring(kind, f"{kind} {days}", "somebody", None if days is None else NOW + days * DAY, problem, **more)


@pytest.mark.parametrize(
    ("expiring", "due", "left"),
    [
        (item("client", 29), True, "29 days"),
        (item("client", 31), False, "31 days"),
        (item("client", -1), True, "expired"),
        (item("client", None), False, "never expires"),
        (item("client", None, "not read: timed out"), False, "not read: timed out"),
        (item("authority", 300, limit=expiry.YEAR), True, "9 months"),
        (item("server", 0.5, limit=expiry.HOUR), False, "0 days"),
        (item("server", 0.01, limit=expiry.HOUR), True, "0 days"),
    ],
)
def test_each_thing_has_a_limit_of_its_own(expiring: Expiring, due: bool, left: str) -> None:
    assert (expiring.is_due(NOW), expiring.left(NOW)) == (due, left)


def test_what_is_late_and_what_was_not_read_fails_the_check_of_its_kind_and_names_its_renewal() -> None:
    found = [item("client", 300), item("server", 3), item("secret", None, "not read: refused"), item("authority", 3000)]
    failed = {check.name: (check.result, check.remedy) for check in expiry.checks(found, NOW) if not check.passed}
    assert failed == {
        expiry.CHECKS["server"]: ("0 of 1; not: server 3 (3 days)", "server 3: somebody"),
        expiry.CHECKS["secret"]: ("0 of 1; not: secret None (not read: refused)", "secret None: somebody"),
    }


@pytest.mark.lab
def test_client_certificates_are_renewed_before_they_end_and_everything_is_listed(labs: Callable[..., Any]) -> None:
    lab = labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")
    context = lab.context()
    short = access.kubernetes_client(context.secrets.bundle(), days=29.9)
    soon = access.kubeconfig(context.secrets.bundle(), "fluodata", "https://x", identity=short)
    config = context.secrets.kubeconfig(context.platform)
    config["users"] = soon["users"]
    write_text(context.home / "kubeconfig", access.dump(config), mode=0o600)
    stage = lab.stage("certificates")
    plan = stage.plan()
    assert [(action.verb, action.object) for action in plan.actions] == [("renew", "kubeconfig")]
    assert "expires on" in plan.actions[0].reason
    stage.apply(plan)
    assert stage.verify().ok
    rows = {(each.kind, each.name): each for each in expiry.read(lab.context())}
    names = [node.name for node in context.platform.nodes]
    assert {("server", f"{what} of {name}") for what in ("Talos API", "kubelet") for name in names} <= set(rows)
    assert {("authority", f"authority of {title}") for title in expiry.AUTHORITIES.values()} <= set(rows)
    assert not [each for each in rows.values() if each.problem]
    lab.mark()
    again = lab.stage("certificates")
    plan = again.plan()
    again.apply(plan)
    assert plan.actions == ()
    assert lab.requests(mutating=True) == []
