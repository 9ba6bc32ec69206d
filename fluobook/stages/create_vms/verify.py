"""Proves stage 1 from what was observed after it, and from a look at every node's address."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fluobook.clients.talos import Mode, probe
from fluobook.stages.core.check import Check
from fluobook.stages.create_vms.hardware import differences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook.context import RunContext
    from fluobook.params import Node
    from fluobook.stages.create_vms.observe import Observation


def verify(context: RunContext, seen: Observation) -> Sequence[Check]:
    """The checks of stage 1."""
    nodes = context.platform.nodes
    with ThreadPoolExecutor(16) as pool:
        silent = [
            node.name
            for node, answers in zip(nodes, pool.map(lambda node: _answers(context, node), nodes), strict=True)
            if not answers
        ]
    ours = {node.name: seen.ours(node) for node in nodes}
    stopped = [name for name, vm in ours.items() if vm is None or not vm.running]
    differing = [
        node.name
        for node in nodes
        if (vm := ours[node.name]) and differences(context.platform, node, vm.config, vm.resource)
    ]
    total = len(nodes)
    return (
        Check(
            "every node's VM exists, ours by uuid and tag",
            None not in ours.values(),
            _count(total, [n for n, vm in ours.items() if vm is None]),
        ),
        Check("every VM runs", not stopped, _count(total, stopped)),
        Check("every VM has what the params say", not differing, _count(total, differing)),
        Check("every node answers at its address", not silent, _count(total, silent)),
    )


def _count(total: int, wrong: Sequence[str]) -> str:
    return f"{total - len(wrong)} of {total}" + (f"; not: {', '.join(wrong)}" if wrong else "")


def _answers(context: RunContext, node: Node) -> bool:
    try:
        context.wait_until("maintenance", node.name, lambda: _mode(context, node))
    except Exception:  # noqa: BLE001 (a check tells, it does not raise)
        return False
    return True


def _mode(context: RunContext, node: Node) -> bool | None:
    return True if probe(context.talos.address(node), timeout=2).mode is not Mode.UNREACHABLE else None
