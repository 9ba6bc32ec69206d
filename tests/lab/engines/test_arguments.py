"""Extra arguments of the control plane and the kubelet, by Talos' policies."""

from __future__ import annotations

import pytest
from fluobook_lab.engines.arguments import command_line, merged, refused_by_kubelet, refused_by_talos

from fluobook.errors import FluobookError

OWN = {
    "bind-address": "127.0.0.1",
    "enable-admission-plugins": "NodeRestriction",
    "etcd-servers": "https://127.0.0.1:2379",
    "profiling": "false",
    "service-account-issuer": "https://10.10.0.10:6443",
}
KUBELET = {"rotate-server-certificates": "true", "node-labels": "a=b", "v": "2"}


@pytest.mark.parametrize(
    ("extra", "line"),
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
def test_an_argument_replaces_joins_or_is_added(extra: dict[str, object], line: str) -> None:
    assert line in command_line(merged(OWN, "apiServer", extra))


def test_a_further_issuer_leaves_the_first_in_place() -> None:
    lines = command_line(merged(OWN, "apiServer", {"service-account-issuer": "https://api"}))
    issuers = [line for line in lines if line.startswith("--service-account-issuer")]
    assert issuers == ["--service-account-issuer=https://10.10.0.10:6443", "--service-account-issuer=https://api"]


def test_an_argument_that_talos_sets_is_refused_with_its_message() -> None:
    with pytest.raises(FluobookError, match=r"cluster\.apiServer\.extraArgs") as caught:
        merged(OWN, "apiServer", {"etcd-servers": "https://elsewhere"})
    assert caught.value.cause == 'extra arg "etcd-servers" is not allowed'


def test_a_lab_stays_on_loopback() -> None:
    assert "--bind-address=127.0.0.1" in command_line(merged(OWN, "apiServer", {"bind-address": "0.0.0.0"}))


def test_no_extra_arguments_change_nothing() -> None:
    assert command_line(merged(OWN, "apiServer", None)) == [f"--{name}={value}" for name, value in OWN.items()]


def test_a_kubelet_knows_its_flags() -> None:
    assert (refused_by_talos(KUBELET), refused_by_kubelet(KUBELET)) == ("", "")


def test_an_unknown_flag_ends_a_kubelet() -> None:
    message = refused_by_kubelet({**KUBELET, "rotate-server-certificate": "true"})
    assert message.endswith('unknown flag: --rotate-server-certificate"')


def test_a_kubelet_flag_that_talos_sets_is_refused() -> None:
    assert refused_by_talos({**KUBELET, "kubeconfig": "/etc/x"}).endswith('extra arg "kubeconfig" is not allowed')
