"""The timeline of a run as SVG: its stages, and the actions of each stage with the critical path marked."""

from __future__ import annotations

import bisect
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fluobook.journal.history import Performed

MOST_ACTIONS = 150
"""Actions that are drawn; of more, those of the critical path and the longest ones."""
LONGEST_LABEL, LONGEST_TITLE = 42, 200
ROW, LABELS = 15, 38
"""Pixels of a row; percent of the width for the labels."""


@dataclass(frozen=True)
class Bar:
    """A row: what is drawn from `began` to `ended`, in seconds; `tone` is "", bad or wait."""

    label: str
    began: float
    ended: float
    critical: bool = False
    tone: str = ""


def critical_path(actions: Sequence[Performed]) -> set[Performed]:
    """The chain of actions that determined how long a stage took, found from its end.

    Before an action comes the one it needs that ended last. An action that needs none waited, if it did, for a slot:
    before it comes the one that ended last before it began.
    """
    done = sorted((action for action in actions if action.ended is not None), key=_end)
    ends, named = [_end(action) for action in done], {action.action: action for action in done}
    path: set[Performed] = set()
    current = done[-1] if done else None
    while current is not None and current not in path:
        path.add(current)
        begin = current.began
        before = [named[name] for name in current.needs if name in named and _end(named[name]) <= begin]
        latest = bisect.bisect_left(ends, begin) - 1
        current = max(before, key=_end) if before else done[latest] if latest >= 0 else None
    return path


def _end(action: Performed) -> float:
    return action.ended if action.ended is not None else action.began


def shown(actions: Sequence[Performed], critical: set[Performed]) -> list[Performed]:
    """The actions that are drawn, in the order in which they began."""
    chosen = sorted(actions, key=lambda action: (action not in critical, action.result == "done", -action.seconds))
    kept = set(chosen[:MOST_ACTIONS])
    return [action for action in actions if action in kept]


def timelines(stages: Mapping[str, Sequence[Performed]], spans: Mapping[str, tuple[float, float]]) -> str:
    """The stages of a run over its time, then the actions of each stage over the stage's.

    Args:
        stages: the actions of each stage.
        spans: when each stage began and ended.
    """
    parts = [drawing("stages", [Bar(stage, *span) for stage, span in spans.items()][:MOST_ACTIONS])]
    everything = [action for actions in stages.values() for action in actions]
    paths = {stage: critical_path(actions) for stage, actions in stages.items()}
    kept = set(shown(everything, set().union(*paths.values())))
    for stage, actions in stages.items():
        end = max(map(_end, actions), default=0.0)
        bars = [_bar(action, end, action in paths[stage]) for action in actions if action in kept]
        if bars:
            hidden = len(actions) - len(bars)
            more = f", {hidden} shorter ones not drawn" if hidden else ""
            parts.append(drawing(f"{stage}: {len(actions)} actions{more}", bars))
    return "".join(parts)


def _bar(action: Performed, end: float, critical: bool) -> Bar:
    tone = {"done": "", "failed": "bad"}.get(action.result, "wait")
    label = f"{action.verb} {action.object}".strip() or action.action
    return Bar(label, action.began, action.ended if action.ended is not None else end, critical, tone)


def drawing(title: str, bars: Sequence[Bar]) -> str:
    """One drawing with its title; all bars share one time axis."""
    begin = min((bar.began for bar in bars), default=0.0)
    length = max((bar.ended for bar in bars), default=0.0) - begin or 1.0
    rows = "".join(_row(number, bar, begin, length) for number, bar in enumerate(bars))
    name = html.escape(title[:LONGEST_TITLE])
    return (
        f'<figure><figcaption>{name}</figcaption><svg role="img" aria-label="{name}" width="100%" '
        f'height="{ROW * len(bars)}">{rows}</svg></figure>'
    )


def _row(number: int, bar: Bar, begin: float, length: float) -> str:
    top, scale = number * ROW, (100 - LABELS - 9) / length
    seconds = max(bar.ended - bar.began, 0.0)
    mark = {"bad": "✗ ", "wait": "… "}.get(bar.tone, "") + ("◆ " if bar.critical else "")
    label = bar.label if len(bar.label) <= LONGEST_LABEL else f"{bar.label[: LONGEST_LABEL - 1]}…"
    kind = " ".join(filter(None, [bar.tone, "critical" if bar.critical else ""]))
    left, width = LABELS + 9 + (bar.began - begin) * scale, seconds * scale
    return (
        f"<g><title>{html.escape(bar.label[:LONGEST_TITLE])}: {seconds:.2f} s</title>"
        f'<text x="0" y="{top + 11}">{html.escape(mark + label)}</text>'
        f'<text x="{LABELS + 8}%" y="{top + 11}" text-anchor="end">{seconds:.1f} s</text>'
        f'<rect class="{kind}" x="{left:.2f}%" y="{top + 3}" width="{max(width, 0.3):.2f}%" height="{ROW - 5}"/></g>'
    )


def waves(actions: Iterable[Performed]) -> dict[int, list[Performed]]:
    """The Applications that a run waited for, by their wave; a journal of an earlier version has none."""
    grouped: dict[int, list[Performed]] = {}
    for action in actions:
        if action.verb == "await" and isinstance(wave := action.evidence.get("wave"), int):
            grouped.setdefault(wave, []).append(action)
    return dict(sorted(grouped.items()))
