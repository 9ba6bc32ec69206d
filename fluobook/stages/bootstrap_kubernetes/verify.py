"""Proves stage 3."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from fluobook.stages.core.check import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook.context import RunContext
    from fluobook.params import Platform
    from fluobook.stages.bootstrap_kubernetes.observe import Networks, Observation


def verify(context: RunContext, seen: Observation) -> Sequence[Check]:
    """The checks of stage 3."""
    platform = context.platform
    wanted = {node.name for node in platform.control_planes}
    members = {member.hostname for found in seen.members.values() for member in found}
    unready = [node.name for node in platform.nodes if not seen.ready.get(node.name)]
    bare = [node.name for node in platform.nodes if node.name not in seen.cilium]
    total, version = len(platform.nodes), f"v{platform.versions.kubernetes.removeprefix('v')}"
    private = all((context.home / name).stat().st_mode & 0o077 == 0 for name in seen.files if seen.files[name])
    return (
        Check(
            "etcd has exactly our control planes as members", members == wanted, ", ".join(sorted(members)) or "none"
        ),
        Check("the Kubernetes API answers", seen.api == version, seen.api or "no answer"),
        _networks(platform, seen.networks),
        Check("every node is Ready", not unready, _count(total, unready)),
        Check("a Cilium agent is ready on every node", not bare, _count(total, bare)),
        Check(
            "kubeconfig and talosconfig are written, for their owner alone",
            all(seen.files.values()) and private,
            ", ".join(sorted(seen.files)),
        ),
    )


def _networks(platform: Platform, seen: Networks | None) -> Check:
    """A cluster with other networks than the params' works at first, and cannot be changed later."""
    claim, cluster = "Services and pods have the networks of the params", platform.cluster
    if seen is None:
        return Check(claim, False, "no answer")  # noqa: FBT003 (a check's outcome, by position as the others)
    fits = ip_address(seen.service) in ip_network(cluster.service_cidr)
    # Which node got which part is chance; a stored output may not depend on it.
    parts = sorted(ip_network(pods) for pods in seen.pods)
    fits = fits and all(part.subnet_of(ip_network(cluster.pod_cidr)) for part in parts)  # type: ignore[arg-type]
    told = f"Services {seen.service}, pods {', '.join(map(str, parts)) or 'none'}"
    wanted = f"; wanted {cluster.service_cidr} and {cluster.pod_cidr}"
    remedy = (
        "cluster.network of the machine configurations differs: correct it before anything is stored, and begin anew"
    )
    return Check(claim, fits, told + ("" if fits else wanted), remedy=remedy)


def _count(total: int, wrong: Sequence[str]) -> str:
    return f"{total - len(wrong)} of {total}" + (f"; not: {', '.join(wrong)}" if wrong else "")
