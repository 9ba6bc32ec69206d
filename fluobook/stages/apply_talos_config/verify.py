"""Proves stage 2: from the dry runs that were observed after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.clients.talos import Mode
from fluobook.stages.core.check import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook.context import RunContext
    from fluobook.stages.apply_talos_config.observe import Observation


def verify(context: RunContext, seen: Observation) -> Sequence[Check]:
    """The checks of stage 2."""
    nodes = context.platform.nodes
    strangers = [node.name for node in nodes if seen.mode(node) is not Mode.CONFIGURED]
    differing = [name for name, applied in seen.dry_runs.items() if not applied.unchanged]
    wanted = f"v{context.platform.versions.talos.removeprefix('v')}"
    other = [f"{name} has {version or 'unknown'}" for name, version in seen.versions.items() if version != wanted]
    total = len(nodes)
    return (
        Check("the secrets bundle exists, encrypted", seen.bundle and encrypted(context), context.secrets.path.name),
        Check("every node trusts this cluster's authority", not strangers, _count(total, strangers)),
        Check(
            "every node has exactly this configuration",
            not differing and not strangers,
            _count(total, differing or strangers),
        ),
        Check(f"every node runs Talos {wanted}", not other and not strangers, _count(total, other or strangers)),
    )


def encrypted(context: RunContext) -> bool:
    """Whether the bundle's file carries SOPS metadata and no private key in clear."""
    text = context.secrets.path.read_text()
    return "sops:" in text and "PRIVATE KEY" not in text and not context.redactor.leaks(text)


def _count(total: int, wrong: Sequence[str]) -> str:
    return f"{total - len(wrong)} of {total}" + (f"; not: {', '.join(wrong)}" if wrong else "")
