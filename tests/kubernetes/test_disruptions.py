"""How many pods a disruption budget lets go: numbers, percentages rounded up, and pods that are not healthy."""

from __future__ import annotations

from typing import Any

import pytest

from fluobook.kubernetes.quantities import disruptions_allowed


@pytest.mark.parametrize(
    ("budget", "total", "healthy", "allowed"),
    [
        ({"minAvailable": 2}, 3, 3, 1),
        ({"minAvailable": 2}, 3, 2, 0),
        ({"minAvailable": 1}, 1, 1, 0),
        ({"minAvailable": "50%"}, 3, 3, 1),
        ({"minAvailable": "100%"}, 3, 3, 0),
        ({"maxUnavailable": 1}, 3, 3, 1),
        ({"maxUnavailable": 1}, 3, 2, 0),
        ({"maxUnavailable": 0}, 3, 3, 0),
        ({"maxUnavailable": "34%"}, 3, 3, 2),
        ({}, 2, 2, 1),
    ],
)
def test_a_budget_lets_go_what_it_does_not_need(budget: dict[str, Any], total: int, healthy: int, allowed: int) -> None:
    assert disruptions_allowed(budget, total, healthy) == allowed
