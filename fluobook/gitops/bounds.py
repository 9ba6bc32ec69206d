"""The least and the greatest value that a PromQL expression can have, as far as its form says it."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import promql_parser as promql

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
_OPPOSITES = {">": "<=", "<=": ">", "<": ">=", ">=": "<", "==": "!=", "!=": "=="}
Bounds = tuple[float, float]
ANY: Bounds = (-math.inf, math.inf)
POSITIVE: Bounds = (0, math.inf)
_OF_FUNCTION: dict[str, Bounds] = {
    **dict.fromkeys(("rate", "irate", "increase", "changes", "resets", "time"), POSITIVE),
    **dict.fromkeys(("stddev", "stdvar", "stddev_over_time", "stdvar_over_time"), POSITIVE),
    **dict.fromkeys(("count", "count_over_time"), (1, math.inf)),
    **dict.fromkeys(("absent", "absent_over_time", "present_over_time", "group"), (1, 1)),
    "hour": (0, 23),
    "minute": (0, 59),
    "month": (1, 12),
    "day_of_month": (1, 31),
    "day_of_week": (0, 6),
    "day_of_year": (1, 366),
    "days_in_month": (28, 31),
    "sgn": (-1, 1),
}
"""What functions and aggregations return, whatever they are given."""
_OF_ARGUMENT = {
    *("avg", "min", "max", "topk", "bottomk", "limitk", "scalar", "vector", "sort", "sort_desc", "label_replace"),
    *("label_join", "avg_over_time", "min_over_time", "max_over_time", "last_over_time", "ceil", "floor", "round"),
}
"""Functions and aggregations whose values lie between those of their argument."""
_NUMBER_FIRST = {"quantile", "quantile_over_time"}
"""Those that have a number before their argument."""


@dataclass(frozen=True)
class Metric:
    """A metric as it is scraped here.

    `labels` are all that its series have, `shadowed` those of the exporter that the target's labels hide;
    `label_values` and `values` are complete where they are given; `counter` is None where only the exporter knows;
    `positive` says that it is never below 0, `part_of` names the metric that it never exceeds;
    `states` are labels of which a thing has a series for each value; `by_job` has what the targets of a job have.
    """

    program: str
    labels: frozenset[str]
    shadowed: frozenset[str] = frozenset()
    label_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: tuple[float, ...] = ()
    counter: bool | None = None
    positive: bool = False
    part_of: str = ""
    states: frozenset[str] = frozenset()
    by_job: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)


def bounds(node: Any, metrics: Mapping[str, Metric]) -> Bounds:
    """Both ends of what a node of a parsed expression can evaluate to; infinite where nothing is known."""
    interval = ANY
    match node:
        case promql.NumberLiteral():
            interval = node.val, node.val
        case promql.VectorSelector() if metric := metrics.get(node.name or ""):
            interval = POSITIVE if metric.counter or metric.positive or str(node.name).endswith("_bytes") else ANY
            interval = (min(metric.values), max(metric.values)) if metric.values else interval
        case promql.MatrixSelector():
            interval = bounds(node.vector_selector, metrics)
        case promql.ParenExpr() | promql.SubqueryExpr():
            interval = bounds(node.expr, metrics)
        case promql.UnaryExpr():
            low, high = bounds(node.expr, metrics)
            interval = -high, -low
        case promql.AggregateExpr():
            interval = _called(str(node.op), [bounds(node.expr, metrics)])
        case promql.Call():
            arguments = [bounds(argument, metrics) for argument in node.args]
            interval = _called(node.func.name, arguments[-1:] if node.func.name in _NUMBER_FIRST else arguments)
        case promql.BinaryExpr() if node.modifier and node.modifier.return_bool:
            interval = 0, 1
        case promql.BinaryExpr():
            ratio = ratios(node.lhs, node.rhs, metrics) if str(node.op) == "/" else ANY
            interval = (
                _combined(str(node.op), bounds(node.lhs, metrics), bounds(node.rhs, metrics)) if ratio == ANY else ratio
            )
    return interval


def ratios(left: Any, right: Any, metrics: Mapping[str, Metric]) -> Bounds:
    """Both ends of left / right, where one is a part of the other; else `ANY`."""
    if share := _share(left, right, metrics):
        return 0, share
    return (1 / share, math.inf) if (share := _share(right, left, metrics)) else ANY


def _called(name: str, arguments: list[Bounds]) -> Bounds:
    low, high = arguments[0] if arguments else ANY
    interval = _OF_FUNCTION.get(name, ANY)
    match name:
        case _ if name in _OF_ARGUMENT or name in _NUMBER_FIRST:
            interval = low, high
        case "sum" | "sum_over_time":
            interval = low if low >= 0 else -math.inf, high if high <= 0 else math.inf
        case "abs":
            interval = 0 if low <= 0 <= high else min(abs(low), abs(high)), max(abs(low), abs(high))
        case "clamp_max":
            interval = min(low, arguments[1][0]), min(high, arguments[1][1])
        case "clamp_min":
            interval = max(low, arguments[1][0]), max(high, arguments[1][1])
        case "clamp":
            interval = max(low, arguments[1][0]), min(high, arguments[2][1])
    return interval


def bare(node: Any) -> Any:
    """What stands in parentheses."""
    while isinstance(node, promql.ParenExpr):
        node = node.expr
    return node


def _share(part: Any, whole: Any, metrics: Mapping[str, Metric]) -> float:
    """The largest ratio of something and a part of it, 0 if that is not known.

    A part is the same with more conditions, a metric that is `part_of` it, what is left of it, or a multiple of these.
    """
    part, whole = bare(part), bare(whole)
    share = 0.0
    match part, whole:
        case promql.BinaryExpr(), _ if str(part.op) == "*":
            numbers = [side for side in (part.lhs, part.rhs) if isinstance(side, promql.NumberLiteral)]
            other = part.rhs if numbers and numbers[0] is part.lhs else part.lhs
            share = numbers[0].val * _share(other, whole, metrics) if numbers else 0
        case promql.BinaryExpr(), _ if str(part.op) == "-" and part.lhs.prettify() == whole.prettify():
            share = _share(part.rhs, whole, metrics)
        case promql.VectorSelector(), promql.VectorSelector():
            wanted, given = (
                {str(side.offset), str(side.at), *map(str, side.matchers.matchers)} for side in (whole, part)
            )
            metric = metrics.get(part.name or "")
            is_part = metric is not None and metric.part_of == whole.name
            is_same = part.name == whole.name and bounds(part, metrics)[0] >= 0
            share = wanted <= given and (is_part or is_same)
        case promql.MatrixSelector(), promql.MatrixSelector() if part.range == whole.range:
            share = _share(part.vector_selector, whole.vector_selector, metrics)
        case promql.Call(), promql.Call() if part.func.name == whole.func.name in ("rate", "irate", "increase"):
            share = _share(part.args[0], whole.args[0], metrics)
        case promql.AggregateExpr(), promql.AggregateExpr():
            operators = str(part.op), str(whole.op)
            is_mean = operators == ("sum", "count") and bounds(part.expr, metrics)[1] <= 1
            is_group = whole.modifier is None or str(whole.modifier) == str(part.modifier)
            inner = bare(part.expr)
            is_filter = isinstance(inner, promql.BinaryExpr) and str(inner.op) in COMPARISONS
            inner = inner.lhs if is_filter and not (inner.modifier and inner.modifier.return_bool) else inner
            if is_group and (is_mean or operators in (("sum", "sum"), ("count", "count"))):
                share = _share(inner, whole.expr, metrics)
    return share


def _combined(compare: str, left: Bounds, right: Bounds) -> Bounds:
    if compare == "*" and left[0] == left[1]:
        left, right = right, left
    interval = left if compare in ("and", "unless", "!=") else ANY
    match compare:
        case "+":
            interval = left[0] + right[0], left[1] + right[1]
        case "-":
            interval = left[0] - right[1], left[1] - right[0]
        case "*" | "/" if right[0] >= 0:
            interval = _scaled(compare, left, right)
        case "or":
            interval = min(left[0], right[0]), max(left[1], right[1])
        case ">" | ">=":
            interval = max(left[0], right[0]), left[1]
        case "<" | "<=":
            interval = left[0], min(left[1], right[1])
        case "==":
            interval = max(left[0], right[0]), min(left[1], right[1])
    return interval


def _scaled(compare: str, left: Bounds, right: Bounds) -> Bounds:
    """The bounds of a product or a ratio whose right side is not negative."""
    if right[0] == right[1] > 0:
        low, high = (end * right[0] if compare == "*" else end / right[0] for end in left)
        return low, high
    return 0 if left[0] >= 0 else -math.inf, 0 if left[1] <= 0 else math.inf


def is_always(compare: str, left: Bounds, right: Bounds) -> bool:
    """Whether a comparison is true for all values between the bounds of its sides."""
    return is_never(_OPPOSITES[compare], left, right)


def is_never(compare: str, left: Bounds, right: Bounds) -> bool:
    """Whether a comparison is true for no value between the bounds of its sides."""
    never = {
        ">": left[1] <= right[0],
        ">=": left[1] < right[0],
        "<": left[0] >= right[1],
        "<=": left[0] > right[1],
        "==": left[1] < right[0] or left[0] > right[1],
        "!=": left == right and left[0] == left[1],
    }
    return never[compare]
