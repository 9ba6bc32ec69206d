"""Flags of a kubelet that is only played."""

from __future__ import annotations

from fluobook_lab.engines.kubelet_flags import refused_by_kubelet, refused_by_talos

OURS = {"rotate-server-certificates": "true", "node-labels": "a=b", "v": "2"}


def test_a_kubelet_knows_its_flags() -> None:
    assert (refused_by_talos(OURS), refused_by_kubelet(OURS)) == ("", "")


def test_a_flag_that_it_does_not_have_ends_it() -> None:
    said = refused_by_kubelet({**OURS, "rotate-server-certificate": "true"})
    assert said.endswith('unknown flag: --rotate-server-certificate"')


def test_a_flag_that_talos_sets_is_refused_before() -> None:
    assert refused_by_talos({**OURS, "kubeconfig": "/etc/x"}).endswith('extra arg "kubeconfig" is not allowed')
