"""Only an absent server is read as "the stage has not run"; every other error keeps its own cause."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fluobook.clients.https import NO_CONNECTION
from fluobook.errors import (
    AccessDenied,
    FluobookError,
    InvalidAnswer,
    NotFound,
    OutsideError,
    Unreachable,
    may_be_starting,
)
from fluobook.failures import explain
from fluobook.stages import approve_csrs
from fluobook.stages.bootstrap_kubernetes.plan import etcd_members, read_kubernetes
from fluobook.stages.core.cluster import Missing, api, probe_nodes


def error(kind: type[OutsideError], code: str, system: str = "kubernetes") -> OutsideError:
    return kind(f"no answer: {code}", system=system, code=code, facts={"status": code})


class Cluster:
    """A context whose Kubernetes API and nodes fail in one way."""

    def __init__(self, failure: FluobookError) -> None:
        self._failure = failure
        self.secrets = SimpleNamespace(has_bundle=lambda: True)
        self.platform = SimpleNamespace(api_address="10.10.0.10", nodes=())

    def kube(self) -> Any:
        return self

    def fail(self, *_: Any, **__: Any) -> Any:
        raise self._failure

    version = list = etcd_members = fail


ABSENT = [error(Unreachable, code) for code in sorted(NO_CONNECTION)]

OTHER_CAUSES: dict[str, tuple[OutsideError, str]] = {
    "expired certificate": (error(Unreachable, "CERTIFICATE_EXPIRED"), "F116"),
    "clock behind": (error(Unreachable, "CERTIFICATE_NOT_YET_VALID"), "F117"),
    "certificate of another host": (error(Unreachable, "CERTIFICATE_WRONG_HOST"), "F118"),
    "unknown authority": (error(Unreachable, "CERTIFICATE"), "F86"),
    "client certificate expired for the server": (error(Unreachable, "TLS_ALERT_EXPIRED"), "F133"),
    "TLS refused": (error(Unreachable, "TLS_ALERT"), "F123"),
    "no TLS": (error(Unreachable, "NOT_TLS"), "F122"),
    "401": (error(AccessDenied, "Unauthorized"), "F132"),
    "403": (error(AccessDenied, "Forbidden"), "F80"),
    "web page": (error(InvalidAnswer, "HTML"), "F75"),
}

FAULTS: dict[str, tuple[OutsideError, str]] = {
    "500": (error(OutsideError, "500"), "F129"),
    "502": (error(Unreachable, "502"), "F127"),
    "503": (error(Unreachable, "ServiceUnavailable"), "F127"),
    "no complete answer in time": (error(Unreachable, "DEADLINE_EXCEEDED"), "F115"),
    "too many requests": (error(Unreachable, "429"), "F126"),
}


@pytest.mark.parametrize("failure", ABSENT, ids=lambda failure: failure.code)
def test_an_absent_api_is_what_the_stage_before_brings(failure: OutsideError) -> None:
    cluster: Any = Cluster(failure)
    assert isinstance(api(cluster), Missing)
    assert approve_csrs.observe(cluster).missing.stage == "bootstrap-kubernetes"  # type: ignore[union-attr]
    reported = read_kubernetes(cluster)
    assert (reported.version, reported.problem) == ("", "")


@pytest.mark.parametrize("name", OTHER_CAUSES)
def test_a_matter_of_trust_is_never_read_as_a_stage_that_has_not_run(name: str) -> None:
    failure, code = OTHER_CAUSES[name]
    cluster: Any = Cluster(failure)
    for read in (api, approve_csrs.observe, read_kubernetes, etcd_members):
        with pytest.raises(type(failure)) as caught:
            read(cluster)
        assert caught.value is failure
    assert explain(failure)[0].failure.code == code
    assert not may_be_starting(failure)


@pytest.mark.parametrize("code", ["CERTIFICATE_EXPIRED", "CERTIFICATE_NOT_YET_VALID", "CERTIFICATE_WRONG_HOST"])
def test_a_node_whose_certificate_is_not_valid_now_ends_the_probe_of_all_nodes(code: str) -> None:
    failure = error(Unreachable, code, "talos")
    cluster: Any = Cluster(failure)
    cluster.platform.nodes = (SimpleNamespace(name="talos-cp-1"),)
    cluster.shared = lambda _kind, make: make()
    cluster.talos = SimpleNamespace(probe=cluster.fail)
    with pytest.raises(Unreachable) as caught:
        probe_nodes(cluster)
    assert caught.value is failure


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_server_is_named_and_stage_3_waits_for_its_end(name: str) -> None:
    failure, code = FAULTS[name]
    cluster: Any = Cluster(failure)
    for read in (api, approve_csrs.observe):
        with pytest.raises(type(failure)):
            read(cluster)
    assert read_kubernetes(cluster).problem == failure.message
    assert explain(failure)[0].failure.code == code


@pytest.mark.parametrize(
    ("failure", "starting"),
    [
        (error(OutsideError, "UNAVAILABLE", "talos"), True),
        (error(OutsideError, "FAILED_PRECONDITION", "talos"), True),
        (error(Unreachable, "ECONNREFUSED", "talos"), True),
        (error(NotFound, "NOT_FOUND", "talos"), True),
        (error(AccessDenied, "PERMISSION_DENIED", "talos"), False),
        (error(Unreachable, "CERTIFICATE_EXPIRED", "talos"), False),
        (error(InvalidAnswer, "MALFORMED", "talos"), False),
        (FluobookError("ours"), False),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_etcd_without_an_answer_is_not_taken_for_etcd_without_data(failure: FluobookError, *, starting: bool) -> None:
    assert may_be_starting(failure) is starting
    talos: Any = Cluster(failure)
    if starting:
        assert etcd_members(talos) == ()
    else:
        with pytest.raises(FluobookError):
            etcd_members(talos)
