"""PromQL expressions of alert rules and dashboards, compared with the metrics that the platform's programs expose.

cluster-gitops/metrics.yaml lists the metrics. An expression with a metric, a label or a value that does not exist is
valid, and never true: nobody notices until the alert is missed.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import promql_parser as promql

from fluobook.errors import BadFile
from fluobook.files import pattern
from fluobook.gitops.documents import Document, Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

NAME = "metrics.yaml"
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
FLIPPED = {">": "<", "<": ">", ">=": "<=", "<=": ">="}
_WORDS = re.compile(r"[\w|-]+")
_KEEPS_LABELS = {"topk", "bottomk", "limitk", "limit_ratio"}
_VARIABLE = re.compile(r"\$__\w+|\$\{?\w+\}?")


@dataclass(frozen=True)
class Metric:
    """A metric as it is scraped here.

    `labels` are all that its series have, `shadowed` those of the exporter that the target's labels hide;
    `label_values` and `values` are complete where they are given.
    """

    program: str
    labels: frozenset[str]
    shadowed: frozenset[str] = frozenset()
    label_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class MetricTable:
    """The metrics of metrics.yaml, upstream's and the operator's together."""

    documents: tuple[Document, ...]

    @cached_property
    def programs(self) -> dict[str, tuple[Document, Mapping[str, Any]]]:
        """Every program by its name: the document that has it, and its facts."""
        return {
            name: (document, facts) for document in self.documents for name, facts in document.data["programs"].items()
        }

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Every metric by its name."""
        return {
            name: _metric(program, facts, row or {})
            for program, (_, facts) in self.programs.items()
            for name, row in facts["metrics"].items()
        }

    def outdated(self, versions: Mapping[str, str]) -> Iterable[tuple[Position, str, str, str]]:
        """Programs that were read at another version of their Application: position, program, both versions."""
        for program, (document, facts) in self.programs.items():
            read_at = facts.get("read_at") or {}
            version, known = versions.get(read_at.get("application", "")), str(read_at.get("version"))
            if version and version != known:
                yield document.at("programs", program, "read_at"), program, known, version


def _metric(program: str, facts: Mapping[str, Any], row: Mapping[str, Any]) -> Metric:
    own, target = set(row.get("labels") or ()), set(facts["target"])
    hidden = set() if facts.get("honor_labels") else own & target
    values = {label: tuple(map(str, known)) for label, known in (row.get("label_values") or {}).items()}
    labels = own | target | {f"exported_{label}" for label in hidden}
    return Metric(program, frozenset(labels), frozenset(hidden), values, tuple(row.get("values") or ()))


@dataclass
class Expression:
    """One expression against the table: `labels` of its result's series, and `problems` that make it wrong."""

    text: str
    metrics: Mapping[str, Metric]
    labels: frozenset[str] = field(init=False, default=frozenset())
    problems: list[str] = field(init=False, default_factory=list)
    shadowed: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        try:
            self.labels = self._labels(promql.parse(_VARIABLE.sub("5m", self.text)))
        except ValueError as error:
            self.problems.append(f"is not PromQL: {error}")
        self.problems = list(dict.fromkeys(self.problems))

    def _labels(self, node: Any) -> frozenset[str]:
        by_type: dict[type, Callable[[Any], frozenset[str]]] = {
            promql.VectorSelector: self._selected,
            promql.MatrixSelector: lambda matrix: self._labels(matrix.vector_selector),
            promql.AggregateExpr: self._aggregated,
            promql.Call: self._called,
            promql.BinaryExpr: self._combined,
            promql.NumberLiteral: lambda _: frozenset(),
            promql.StringLiteral: lambda _: frozenset(),
        }
        return by_type.get(type(node), lambda wrapped: self._labels(wrapped.expr))(node)

    def _selected(self, selector: Any) -> frozenset[str]:
        metric = self.metrics.get(selector.name or "")
        if metric is None:
            self.problems.append(f"uses {selector.name or selector}, which {NAME} does not have")
            return frozenset()
        self.shadowed |= metric.shadowed
        by_label: dict[str, list[Any]] = {}
        for matcher in selector.matchers.matchers:
            by_label.setdefault(matcher.name, []).append(matcher)
        for label, matchers in by_label.items():
            known = metric.label_values.get(label)
            wanted = " and ".join(repr(matcher.value) for matcher in matchers)
            if label not in metric.labels:
                self.problems.append(f"{selector.name} has no label {label}")
            elif known and not _any_matches(matchers, known):
                self.problems.append(f"no {label} of {selector.name} matches {wanted}: {', '.join(known)}")
            elif (candidates := _candidates(matchers)) and not _any_matches(matchers, candidates):
                self.problems.append(f"no {label} matches {wanted} at the same time")
        return metric.labels

    def _aggregated(self, node: Any) -> frozenset[str]:
        inner = self._labels(node.expr)
        if node.param is not None:
            self._labels(node.param)
        wanted = frozenset(node.modifier.labels if node.modifier else ())
        if str(node.op) in _KEEPS_LABELS:
            return inner
        if node.modifier and "Without" in str(node.modifier.type):
            return inner - wanted
        self._require(wanted, inner, "by")
        return wanted

    def _called(self, node: Any) -> frozenset[str]:
        inner = frozenset[str]().union(*(self._labels(argument) for argument in node.args))
        match node.func.name:
            case "absent" | "absent_over_time":
                selector = node.args[0]
                selector = getattr(selector, "vector_selector", selector)
                matchers = selector.matchers.matchers if isinstance(selector, promql.VectorSelector) else ()
                return frozenset(matcher.name for matcher in matchers if matcher.op == promql.MatchOp.Equal)
            case "scalar" | "vector" | "time":
                return frozenset()
            case "histogram_quantile":
                self._require(frozenset({"le"}), inner, "histogram_quantile, which needs")
                return inner - {"le"}
            case "label_replace" | "label_join":
                return inner | {node.args[1].val}
            case _:
                return inner

    def _combined(self, node: Any) -> frozenset[str]:
        self._compare(node)
        left, right = self._labels(node.lhs), self._labels(node.rhs)
        matching = node.modifier.matching if node.modifier else None
        labels = frozenset(matching.labels if matching else ())
        is_on = matching is not None and str(matching.type).endswith("Include")
        match str(node.op):
            case "and" | "unless":
                return left
            case "or":
                return left & right
        if not _is_vector(node.lhs) or not _is_vector(node.rhs):
            return left | right
        if is_on:
            self._require(labels, left & right, "on")
        card = str(node.modifier.card) if node.modifier else ""
        if "ManyToOne" in card or "OneToMany" in card:
            many, group = (left, "left") if "ManyToOne" in card else (right, "right")
            self._require(frozenset(node.modifier.group_labels or ()), left | right, f"group_{group}")
            return many | frozenset(node.modifier.group_labels or ())
        if not matching and left != right:
            differing = ", ".join(sorted(left ^ right))
            self.problems.append(f"no series match: only one side of {node.op} has {differing}; use on (…)")
        return labels if is_on else left - labels

    def _compare(self, node: Any) -> None:
        """Report a comparison of a metric with a number that is true for none of its values, or for all."""
        compare = str(node.op)
        selector, number = node.lhs, node.rhs
        if isinstance(selector, promql.NumberLiteral):
            selector, number, compare = node.rhs, node.lhs, FLIPPED.get(compare, compare)
        if compare not in COMPARISONS or not isinstance(number, promql.NumberLiteral):
            return
        while isinstance(selector, promql.ParenExpr | promql.AggregateExpr):
            if isinstance(selector, promql.AggregateExpr) and str(selector.op) not in ("max", "min"):
                return
            selector = selector.expr
        metric = self.metrics.get(selector.name or "") if isinstance(selector, promql.VectorSelector) else None
        if metric is None or not metric.values:
            return
        outcomes = {COMPARISONS[compare](value, number.val) for value in metric.values}
        if len(outcomes) == 1 and len(metric.values) > 1:
            always = "always" if outcomes.pop() else "never"
            known = ", ".join(f"{value:g}" for value in metric.values)
            self.problems.append(f"{compare} {number.val:g} is {always} true: {selector.name} has the values {known}")

    def _require(self, wanted: frozenset[str], there: frozenset[str], where: str) -> None:
        for label in sorted(wanted - there) if there or not self.problems else ():
            self.problems.append(f"has {where} ({label}), a label that its series do not have")


def _any_matches(matchers: Iterable[Any], values: Iterable[str]) -> bool:
    return any(all(_matches(matcher.op, matcher.value, value) for matcher in matchers) for value in values)


def _candidates(matchers: Iterable[Any]) -> list[str]:
    """The only values that one of the matchers takes: those of `=`, and of `=~` with words alone; else none."""
    words = [matcher.value for matcher in matchers if matcher.op == promql.MatchOp.Equal]
    words += [m.value for m in matchers if m.op == promql.MatchOp.Re and _WORDS.fullmatch(m.value)]
    return [value for text in words for value in text.split("|")]


def _matches(op: promql.MatchOp, wanted: str, value: str) -> bool:
    """Whether a matcher takes a value; it is said to take what would last too long to find out."""
    is_regex = op in (promql.MatchOp.Re, promql.MatchOp.NotRe)
    try:
        is_match = bool(pattern(wanted, NAME, longest=len(value)).fullmatch(value)) if is_regex else wanted == value
    except BadFile:
        return True
    return is_match == (op in (promql.MatchOp.Equal, promql.MatchOp.Re))


def _is_vector(node: Any) -> bool:
    match node:
        case promql.NumberLiteral() | promql.StringLiteral():
            return False
        case promql.ParenExpr() | promql.UnaryExpr():
            return _is_vector(node.expr)
        case promql.Call():
            return node.func.name not in ("time", "scalar")
        case promql.BinaryExpr():
            return _is_vector(node.lhs) or _is_vector(node.rhs)
    return True
