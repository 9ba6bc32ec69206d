"""What silence of a node means."""

from __future__ import annotations

import pytest

from fluobook import params
from fluobook.clients.talos import Mode
from fluobook.stages.core.cluster import waits_for_control_plane

PLATFORM = params.load("phase3").platform
CONTROL_PLANES = [node.name for node in PLATFORM.control_planes]
FIRST, WORKER = PLATFORM.control_planes[0], next(node for node in PLATFORM.nodes if node.role == "worker")


@pytest.mark.parametrize(
    ("node", "modes", "waits"),
    [
        (WORKER, dict.fromkeys(CONTROL_PLANES, Mode.MAINTENANCE), True),
        (WORKER, {CONTROL_PLANES[0]: Mode.MAINTENANCE}, True),
        (WORKER, {CONTROL_PLANES[0]: Mode.MAINTENANCE, CONTROL_PLANES[1]: Mode.CONFIGURED}, False),
        (WORKER, dict.fromkeys(CONTROL_PLANES, Mode.CONFIGURED), False),
        (WORKER, dict.fromkeys(CONTROL_PLANES, Mode.UNREACHABLE), False),
        (WORKER, {}, False),
        (FIRST, {CONTROL_PLANES[1]: Mode.MAINTENANCE}, False),
    ],
)
def test_a_silent_worker_may_be_configured_while_no_control_plane_is(node, modes, waits):
    assert waits_for_control_plane(node, PLATFORM, modes) is waits
