"""Proves stage 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.stages.core.check import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook.stages.bootstrap_kubernetes.observe import Observation
    from fluobook.stages.core.site import Site


def verify(site: Site, seen: Observation) -> Sequence[Check]:
    """The checks of stage 3."""
    platform = site.platform
    wanted = {node.name for node in platform.control_planes}
    members = {member.hostname for found in seen.members.values() for member in found}
    unready = [node.name for node in platform.nodes if not seen.ready.get(node.name)]
    bare = [node.name for node in platform.nodes if node.name not in seen.cilium]
    total, version = len(platform.nodes), f"v{platform.versions.kubernetes.removeprefix('v')}"
    private = all((site.home / name).stat().st_mode & 0o077 == 0 for name in seen.files if seen.files[name])
    return (
        Check(
            "etcd has exactly our control planes as members", members == wanted, ", ".join(sorted(members)) or "none"
        ),
        Check("the Kubernetes API answers", seen.api == version, seen.api or "no answer"),
        Check("every node is Ready", not unready, _count(total, unready)),
        Check("a Cilium agent is ready on every node", not bare, _count(total, bare)),
        Check(
            "kubeconfig and talosconfig are written, for their owner alone",
            all(seen.files.values()) and private,
            ", ".join(sorted(seen.files)),
        ),
    )


def _count(total: int, wrong: Sequence[str]) -> str:
    return f"{total - len(wrong)} of {total}" + (f"; not: {', '.join(wrong)}" if wrong else "")
