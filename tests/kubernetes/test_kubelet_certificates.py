"""kubelet-csr-approver as it decides, and where it decides other than stage 4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluobook import gitops, params
from fluobook.kubernetes.kubelet_certificates import Approver, approved_nodes, disagreements, problems_of

ROOT = Path(__file__).parents[2]
PLATFORMS = {name: params.load(name, root=ROOT).platform for name in ("phase1", "phase2", "phase3")}


def in_tree(platform: params.Platform) -> Approver:
    """The approver of a phase, as the root Application configures it."""
    tree = gitops.for_phase(platform, gitops.read(ROOT, platform.gitops.path))
    (app,) = [app for app in tree.applications if app.chart == "kubelet-csr-approver"]
    return Approver.from_values(app.values)


@pytest.mark.parametrize("phase", PLATFORMS)
def test_the_tree_and_stage_4_agree_in_every_phase(phase: str) -> None:
    assert list(disagreements(PLATFORMS[phase], in_tree(PLATFORMS[phase]))) == []


@pytest.mark.parametrize("phase", PLATFORMS)
@pytest.mark.parametrize("with_name", [True, False], ids=["with its name", "without a name"])
def test_no_node_gets_an_address_of_a_control_plane_or_the_vip(phase: str, *, with_name: bool) -> None:
    platform = PLATFORMS[phase]
    approver = in_tree(platform)
    addresses = [str(node.address) for node in platform.control_planes]
    addresses += [str(platform.network.vip)] if platform.network.vip else []
    addresses += [str(platform.network.gateway), "10.96.0.1", "127.0.0.1", "::1"]
    for node in platform.nodes:
        names = (node.name,) if with_name else ()
        assert [ip for ip in addresses if not any(approver.problems(node.name, names, (ip,)))] == []
        # Among others, as a kubelet with two addresses requests them.
        assert all(any(approver.problems(node.name, names, (str(node.address), ip))) for ip in addresses)


@pytest.mark.parametrize("phase", PLATFORMS)
def test_every_worker_gets_its_own_certificate_renewed(phase: str) -> None:
    platform = PLATFORMS[phase]
    approver = in_tree(platform)
    workers = [node for node in platform.nodes if node.role == "worker"]
    assert workers
    assert [n.name for n in workers if any(approver.problems(n.name, (n.name,), (str(n.address),)))] == []


def test_without_workers_the_control_planes_are_approved() -> None:
    platform = PLATFORMS["phase3"]
    alone = platform.model_copy(update={"nodes": tuple(platform.control_planes)})
    assert approved_nodes(alone) == list(platform.control_planes)
    prefixes = tuple(f"{node.address}/32" for node in platform.control_planes)
    pattern = f"^({'|'.join(node.name for node in platform.control_planes)})$"
    approver = Approver(pattern, prefixes, without_dns=True)
    assert list(disagreements(alone, approver)) == []
    with_vip = replace(approver, prefixes=(*prefixes, f"{alone.network.vip}/32"))
    assert "the VIP" in next(disagreements(alone, with_vip))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"prefixes": ("10.10.0.0/24",)}, "certificate for 10.10.0.10, which is talos-cp-1"),
        ({"prefixes": ("10.10.0.20/32", "10.10.0.21/32", "10.10.0.10/32")}, "10.10.0.10, which is talos-cp-1"),
        ({"prefixes": ("10.10.0.20/31",)}, ""),
        ({"prefixes": ("10.10.0.20/30",)}, "every node can get a certificate for 10.10.0.23"),
        ({"prefixes": ("10.10.0.20/32", "10.10.0.21/32", "10.96.0.0/12")}, "10.96.0.1, which is the Service"),
        ({"prefixes": ("10.10.0.20/32", "10.10.0.21/32", "::/0")}, "every node can get a certificate for ::"),
        ({"prefixes": ("10.10.0.20/32",)}, "talos-worker-2 does not get its own certificate renewed"),
        ({"prefixes": Approver().prefixes}, "10.10.0.10, which is talos-cp-1"),
        ({"pattern": ".*"}, "can get a certificate for the name"),
        ({"pattern": "talos-worker-[0-9]+"}, "can get a certificate for the name"),
        ({"pattern": "^talos-"}, "can get a certificate for the name"),
        ({"without_dns": False}, "talos-worker-1 does not get its own certificate renewed: The SAN DNS Name could not"),
        ({"any_name": True}, "every node can get a certificate for the name talos-worker-1"),
        ({"pattern": "^talos-worker-1$"}, "talos-worker-2 does not get its own certificate renewed"),
    ],
)
def test_a_setting_that_differs_from_stage_4_is_named(change: dict[str, Any], problem: str) -> None:
    platform = PLATFORMS["phase1"]
    reported = "; ".join(disagreements(platform, replace(in_tree(platform), **change)))
    assert problem in reported
    assert bool(problem) is bool(reported)


@pytest.mark.parametrize(
    "environment",
    [
        {"PROVIDER_IP_PREFIXES": "10.10.0.20"},
        {"PROVIDER_IP_PREFIXES": "10.10.0.20/33"},
        {"PROVIDER_IP_PREFIXES": "nonsense/8"},
        {"MAX_EXPIRATION_SEC": "a year"},
    ],
)
def test_settings_with_which_it_does_not_start_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"prefix|Netmask|IPv4|invalid literal|does not appear|not permitted"):
        Approver.from_environment(environment)


@pytest.mark.parametrize(
    ("requestor", "node", "dns", "ips", "problem"),
    [
        ("system:node:talos-worker-1", "talos-worker-1", ("talos-worker-1",), ("10.10.0.20",), ""),
        ("system:node:talos-worker-1", "talos-worker-1", (), ("10.10.0.10",), "10.10.0.10 is not an address"),
        ("system:node:talos-worker-1", "talos-worker-1", (), ("10.10.0.21",), "10.10.0.21 is not an address"),
        ("system:node:talos-worker-1", "talos-worker-1", ("talos-cp-1",), (), "talos-cp-1 is not a name"),
        ("system:node:talos-worker-2", "talos-worker-1", (), ("10.10.0.20",), "filed by system:node:talos-worker-2"),
        ("system:node:mallory", "mallory", (), ("10.10.0.20",), "mallory is not a node of the params"),
    ],
)
def test_stage_4_approves_what_is_the_nodes_own(
    requestor: str, node: str, dns: tuple[str, ...], ips: tuple[str, ...], problem: str
) -> None:
    reported = "; ".join(problems_of(PLATFORMS["phase1"], requestor, node, dns, ips))
    assert problem in reported
    assert bool(problem) is bool(reported)
