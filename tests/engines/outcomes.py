"""What stages verified, taken from the journal of a run or of stages at hand: the same on both engines, or a defect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Verified = dict[str, list[tuple[str, bool, str]]]
"""By stage: each check, whether it passed, and its result."""

CHANCE = "Services and pods have the networks of the params"
"""Its evidence names each node's pod network; which of them the real controller manager takes is chance."""


def verified(events: Iterable[Mapping[str, Any]]) -> Verified:
    """Of each stage what it verified last."""
    return {
        event["stage"]: [
            (check["check"], check["passed"], "" if check["check"] == CHANCE else check["result"])
            for check in event["checks"]
        ]
        for event in events
        if event["event"] == "verified"
    }


def of_run(folder: Path) -> Verified:
    """What a headless run verified."""
    return verified(map(json.loads, (folder / "events.jsonl").read_text().splitlines()))
