"""Extra arguments of the control plane, by Talos' policies."""

from __future__ import annotations

import pytest
from fluobook_lab.engines.extra_args import command_line, merged

from fluobook.errors import FluobookError

OWN = {
    "bind-address": "127.0.0.1",
    "enable-admission-plugins": "NodeRestriction",
    "etcd-servers": "https://127.0.0.1:2379",
    "profiling": "false",
    "service-account-issuer": "https://10.10.0.10:6443",
}


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"profiling": "true"}, "--profiling=true"),
        ({"profiling": True}, "--profiling=true"),
        ({"v": 4}, "--v=4"),
        (
            {"enable-admission-plugins": "AlwaysPullImages, NodeRestriction"},
            "--enable-admission-plugins=NodeRestriction,AlwaysPullImages",
        ),
        ({"service-account-issuer": "https://api"}, "--service-account-issuer=https://api"),
        ({"runtime-config": ["a/v1=true", "b/v1=true"]}, "--runtime-config=b/v1=true"),
    ],
)
def test_an_argument_replaces_joins_or_is_added(told: dict[str, object], line: str) -> None:
    assert line in command_line(merged(OWN, "apiServer", told))


def test_a_further_issuer_leaves_the_first_in_place() -> None:
    lines = command_line(merged(OWN, "apiServer", {"service-account-issuer": "https://api"}))
    issuers = [line for line in lines if line.startswith("--service-account-issuer")]
    assert issuers == ["--service-account-issuer=https://10.10.0.10:6443", "--service-account-issuer=https://api"]


def test_what_talos_keeps_to_itself_is_refused_in_its_words() -> None:
    with pytest.raises(FluobookError, match=r"cluster\.apiServer\.extraArgs") as caught:
        merged(OWN, "apiServer", {"etcd-servers": "https://elsewhere"})
    assert caught.value.cause == 'extra arg "etcd-servers" is not allowed'


def test_a_lab_stays_on_loopback() -> None:
    assert "--bind-address=127.0.0.1" in command_line(merged(OWN, "apiServer", {"bind-address": "0.0.0.0"}))


def test_nothing_told_changes_nothing() -> None:
    assert command_line(merged(OWN, "apiServer", None)) == [f"--{name}={value}" for name, value in OWN.items()]
