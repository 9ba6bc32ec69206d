"""PromQL expressions of alert rules and dashboards, compared with the metrics that the platform's programs expose.

cluster-gitops/metrics.yaml lists the metrics. An expression with a metric, a label or a value that does not exist is
valid, and never true: nobody notices until the alert is missed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import promql_parser as promql

from fluobook.errors import BadFile
from fluobook.files import pattern
from fluobook.gitops.bounds import ANY, COMPARISONS, Metric, bare, bounds, is_always, is_never, ratios
from fluobook.gitops.documents import Document, Position

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

NAME = "metrics.yaml"
_GROUPS = {"ManyToOne": ("left", "lhs"), "OneToMany": ("right", "rhs")}
"""Matches of several series with one: the word for it, and the side with several."""
FLIPPED = {">": "<", "<": ">", ">=": "<=", "<=": ">="}
_SIGNS = {name: {sign for sign in (-1, 0, 1) if compare(sign, 0)} for name, compare in COMPARISONS.items()}
_LONGEST = 20_000
"""Characters of an expression: its parser needs memory for each bracket."""
_WORDS = re.compile(r"[\w|-]+")
_INCREASES, _CHANGES = {"rate", "irate", "increase"}, {"delta", "idelta", "deriv", "predict_linear"}
_SUMS = {"sum", "avg", "max", "min"}
_OVER_TIME = {f"{name}_over_time" for name in (*_SUMS, "last")}
_LITERAL = (promql.MatchOp.Equal, promql.MatchOp.NotEqual)
_KEEPS_LABELS = {"topk", "bottomk", "limitk", "limit_ratio"}
_LABEL = re.compile(r"[A-Za-z_]\w*")
_VARIABLE = re.compile(r"\$__\w+|\$\{?\w+\}?")
_TIMES = re.compile(r".*_(timestamp_seconds|at)")
_NO_TIMES = re.compile(r".*_(bytes|ratio|percent|(ttl|duration|age|lag)_seconds)")
_EARLIEST = 1e9
"""A time after 2001, in seconds since 1970: smaller numbers are durations."""
_PATTERN = re.compile(r".*(\.\.|\.[*+]|\||-\*).*")
"""A value that was meant as a regular expression."""
_COUNTERS = re.compile(r".*(_total|_bucket)|(.*(_sum|_count))")
_NAMESPACES = ("namespace", "exported_namespace", "pvc_namespace", "dest_namespace")
INTERVAL = timedelta(seconds=30)
"""How often vmagent scrapes (`scrapeInterval` of the Application victoria-metrics-stack)."""


@dataclass(frozen=True)
class MetricTable:
    """The metrics of metrics.yaml, upstream's and the operator's together.

    Args:
        documents: the tables.
        namespaces: all that the platform has; any, if there are none.
        jobs: those of scrape objects that belong to no program of the tables.
    """

    documents: tuple[Document, ...]
    namespaces: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()

    @cached_property
    def programs(self) -> dict[str, tuple[Document, Mapping[str, Any]]]:
        """Every program by its name: the document that has it, and its facts."""
        return {
            name: (document, facts) for document in self.documents for name, facts in document.data["programs"].items()
        }

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Every metric by its name."""
        metrics = {
            name: _metric(name, program, facts, row or {}, self.namespaces)
            for program, (_, facts) in self.programs.items()
            for name, row in facts["metrics"].items()
        }
        if (up := metrics.get("up")) and "job" in up.label_values:
            targets = [facts.get("target_values", {}) for _, facts in self.programs.values()]
            by_job = {job: target for target in targets for job in target.get("job", ())}
            jobs = dict.fromkeys([*up.label_values["job"], *by_job, *self.jobs])
            metrics["up"] = replace(up, label_values={**up.label_values, "job": tuple(jobs)}, by_job=by_job)
        return metrics

    def outdated(self, versions: Mapping[str, str]) -> Iterable[tuple[Position, str, str, str]]:
        """Programs that were read at another version of their Application: position, program, both versions."""
        for program, (document, facts) in self.programs.items():
            read_at = facts.get("read_at") or {}
            version, known = versions.get(read_at.get("application", "")), str(read_at.get("version"))
            if version and version != known:
                yield document.at("programs", program, "read_at"), program, known, version


def _metric(
    name: str, program: str, facts: Mapping[str, Any], row: Mapping[str, Any], namespaces: tuple[str, ...]
) -> Metric:
    own, target = set(row.get("labels") or ()), set(facts["target"])
    hidden = set() if facts.get("honor_labels") else own & target
    labels = own | target | {f"exported_{label}" for label in hidden}
    of_target = {key: known for key, known in facts.get("target_values", {}).items() if key in hidden or key not in own}
    given = {**dict.fromkeys(_NAMESPACES, namespaces), **of_target, **row.get("label_values", {})}
    values = {label: tuple(map(str, known)) for label, known in given.items()}
    named = _COUNTERS.fullmatch(name)
    counter = row.get("counter", None if named and named[2] else bool(named))
    positive = row.get("positive", facts.get("positive", False))
    known = tuple(row.get("values") or ())
    part_of = row.get("part_of", "")
    states = frozenset(row.get("label_values", {}) if known != (1,) else ())
    return Metric(program, frozenset(labels), frozenset(hidden), values, known, counter, positive, part_of, states)


@dataclass
class Expression:
    """One expression against the table: `labels` of its result's series, and `problems` that make it wrong.

    `selects` says whether it has a condition; without one, an alert fires for every series.
    """

    text: str
    metrics: Mapping[str, Metric]
    labels: frozenset[str] = field(init=False, default=frozenset())
    problems: list[str] = field(init=False, default_factory=list)
    selects: bool = field(init=False, default=False)
    names: set[str] = field(init=False, default_factory=set)
    shadowed: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        if len(self.text) > _LONGEST:
            self.problems.append(f"has more than {_LONGEST} characters")
            return
        try:
            self._root = promql.parse(_VARIABLE.sub("5m", self.text))
            self.labels = self._labels(self._root)
        except ValueError as error:
            self.problems.append(f"is not PromQL: {error}")
        except RecursionError:
            self.problems.append("is nested too deeply")
        self.problems = list(dict.fromkeys(self.problems))

    def _labels(self, node: Any) -> frozenset[str]:
        by_type: dict[type, Callable[[Any], frozenset[str]]] = {
            promql.VectorSelector: self._selected,
            promql.MatrixSelector: self._ranged,
            promql.AggregateExpr: self._aggregated,
            promql.Call: self._called,
            promql.BinaryExpr: self._combined,
            promql.NumberLiteral: lambda _: frozenset(),
            promql.StringLiteral: self._quoted,
        }
        return by_type.get(type(node), lambda wrapped: self._labels(wrapped.expr))(node)

    def _quoted(self, text: Any) -> frozenset[str]:
        if text is self._root:
            self.problems.append("is a text: remove the inner quotes")
        return frozenset()

    def _selected(self, selector: Any) -> frozenset[str]:
        metric = self.metrics.get(selector.name or "")
        if metric is None:
            self.problems.append(f"uses {selector.name or selector}, which {NAME} does not have")
            return frozenset()
        self.names.add(selector.name)
        self.shadowed |= metric.shadowed
        self.selects |= len(metric.values) == 1
        by_label: dict[str, list[Any]] = {}
        for matcher in selector.matchers.matchers:
            by_label.setdefault(matcher.name, []).append(matcher)
        jobs = [job for job in metric.label_values.get("job", ()) if _any_matches(by_label.get("job", ()), [job])]
        for label, matchers in by_label.items():
            known = metric.label_values.get(label)
            if label != "job" and all(label in metric.by_job.get(job, ()) for job in jobs or [""]):
                known = tuple(dict.fromkeys(value for job in jobs for value in metric.by_job[job][label]))
            wanted = " and ".join(repr(matcher.value) for matcher in matchers)
            if label not in metric.labels:
                self.problems.append(f"{selector.name} has no label {label}")
            elif known and not _any_matches(matchers, known):
                self.problems.append(f"no {label} of {selector.name} matches {wanted}: {', '.join(known)}")
            elif (candidates := _candidates(matchers)) and not _any_matches(matchers, candidates):
                self.problems.append(f"no {label} matches {wanted} at the same time")
            elif literal := [m.value for m in matchers if m.op in _LITERAL and _PATTERN.fullmatch(m.value)]:
                self.problems.append(f"compares {label} with the text {literal[0]!r}; a regular expression needs =~")
        return metric.labels

    def _ranged(self, matrix: Any) -> frozenset[str]:
        if matrix.range < INTERVAL:
            seconds = (matrix.range.total_seconds(), INTERVAL.total_seconds())
            self.problems.append("has a range of {:g} s; metrics are scraped every {:g} s".format(*seconds))
        return self._labels(matrix.vector_selector)

    def _aggregated(self, node: Any) -> frozenset[str]:
        inner = self._labels(node.expr)
        if node.param is not None:
            self._labels(node.param)
        if str(node.op) == "quantile":
            self._require_quantile(node.param)
        wanted = frozenset(node.modifier.labels if node.modifier else ())
        is_without = node.modifier is not None and "Without" in str(node.modifier.type)
        if not is_without:
            self._require(wanted, inner, "by")
        if str(node.op) in _KEEPS_LABELS:
            return inner
        return (inner - wanted if is_without else wanted) | (
            {node.param.val} if str(node.op) == "count_values" else set()
        )

    def _called(self, node: Any) -> frozenset[str]:
        inner = frozenset[str]().union(*(self._labels(argument) for argument in node.args))
        self._require_kind(node)
        match node.func.name:
            case "absent" | "absent_over_time":
                self.selects = True
                selector = node.args[0]
                selector = getattr(selector, "vector_selector", selector)
                matchers = selector.matchers.matchers if isinstance(selector, promql.VectorSelector) else ()
                return frozenset(matcher.name for matcher in matchers if matcher.op == promql.MatchOp.Equal)
            case "scalar" | "vector" | "time":
                return frozenset()
            case "histogram_quantile":
                self._require(frozenset({"le"}), inner, "histogram_quantile, which needs")
                self._require_quantile(node.args[0])
                if "[" not in node.prettify():
                    self.problems.append("has a histogram_quantile of all requests since the start: use rate(…)")
                return inner - {"le"}
            case "label_replace" | "label_join":
                sources = node.args[3:4] if node.func.name == "label_replace" else node.args[3:]
                self._require(frozenset(source.val for source in sources), inner, node.func.name)
                if not _LABEL.fullmatch(node.args[1].val):
                    self.problems.append(f"has {node.func.name} with {node.args[1].val!r}, which is no label's name")
                return inner | {node.args[1].val}
            case "quantile_over_time":
                self._require_quantile(node.args[0])
                return inner
            case _:
                return inner

    def _require_kind(self, node: Any) -> None:
        """Report a counter where only a gauge makes sense, and the other way round."""
        argument = node.args[0] if node.args else None
        name = str(argument.vector_selector.name) if isinstance(argument, promql.MatrixSelector) else ""
        metric = self.metrics.get(name)
        function = node.func.name
        if function in _INCREASES and isinstance(argument, promql.SubqueryExpr):
            inner = bare(argument.expr)
            selected = self.metrics.get(str(inner.name)) if isinstance(inner, promql.VectorSelector) else None
            if isinstance(inner, promql.AggregateExpr):
                self.problems.append(
                    f"has {function} of a sum, which counts a restart as an increase: sum the {function}"
                )
            elif isinstance(inner, promql.Call) or (selected and selected.counter is False):
                self.problems.append(f"has {function} of {inner.prettify()}, which is no counter: use delta or deriv")
        elif metric and function in _INCREASES and metric.counter is False:
            self.problems.append(f"has {function} of {name}, which is no counter: use delta or deriv")
        elif metric and function in _CHANGES and metric.counter:
            self.problems.append(f"has {function} of {name}, which is a counter: use increase or rate")

    def _combined(self, node: Any) -> frozenset[str]:
        self._compare(node)
        compare, selected = str(node.op), self.selects
        left, is_left = self._labels(node.lhs), self.selects
        self.selects = selected if compare == "or" else is_left
        right = self._labels(node.rhs)
        if compare == "or":
            self.selects = selected or (is_left and self.selects)
            return left & right
        self.selects |= compare == "unless"
        if compare == "-" and "time()" in (node.lhs.prettify(), node.rhs.prettify()):
            self._require_times(node)
        if not _is_vector(node.lhs) or not _is_vector(node.rhs):
            return left | right
        matching = node.modifier.matching if node.modifier else None
        labels = frozenset(matching.labels if matching else ())
        is_on = matching is not None and str(matching.type).endswith("Include")
        card = str(node.modifier.card).rpartition(".")[2] if node.modifier else ""
        if is_on:
            self._require(labels, left & right, "on")
        if not self.problems and not is_on and card not in _GROUPS and (differing := (left ^ right) - labels):
            sides = ", ".join(sorted(differing))
            self.problems.append(f"no series match: only one side of {compare} has {sides}; use on (…)")
        self._require_same(node, labels, is_on)
        if compare in ("and", "unless"):
            self._contradict(node)
            return left
        for side in (node.lhs, node.rhs) if is_on else ():
            if (several := self._states(side) - labels) and side is not getattr(
                node, _GROUPS.get(card, ("", ""))[1], 0
            ):
                name = ", ".join(sorted(several))
                self.problems.append(f"has several series for each of on (…): choose one {name}, or sum them")
        if card in _GROUPS:
            added = frozenset(node.modifier.group_labels or ())
            self._require(added, left | right, f"group_{_GROUPS[card][0]}")
            return (left if card == "ManyToOne" else right) | added
        return labels if is_on else left - labels

    def _require_times(self, node: Any) -> None:
        """Report what is no time and stands in a difference from time()."""
        for name in filter(self.metrics.get, (_compared(node.lhs, _OVER_TIME), _compared(node.rhs, _OVER_TIME))):
            if (metric := self.metrics[name]).values or metric.counter or _NO_TIMES.fullmatch(name):
                self.problems.append(f"has the difference of time() and {name}, which is no time")

    def _require_same(self, node: Any, labels: frozenset[str], is_on: bool) -> None:
        """Report sides that no label can have in common."""
        first, second = (self._fixed(side) for side in (node.lhs, node.rhs))
        for label in sorted(first.keys() & second.keys()):
            if not first[label] & second[label] and (label in labels) == is_on:
                sides = " and ".join("|".join(sorted(side[label])) for side in (first, second))
                self.problems.append(f"no series match: the sides of {node.op} have the {label} {sides}; use on (…)")

    def _compare(self, node: Any) -> None:
        """Report a comparison that is true for no possible value, or with a number for all."""
        compare = str(node.op)
        if compare not in COMPARISONS:
            return
        selector, number = node.lhs, node.rhs
        if isinstance(selector, promql.NumberLiteral):
            selector, number, compare = node.rhs, node.lhs, FLIPPED.get(compare, compare)
        left, right = bounds(selector, self.metrics), bounds(number, self.metrics)
        if (ratio := ratios(selector, number, self.metrics)) != ANY:
            left, right = ratio, (1, 1)
        is_always_true = is_always(compare, left, right) or node.lhs.prettify() == node.rhs.prettify()
        self.selects |= not (node.modifier and node.modifier.return_bool) and not is_always_true
        name, values = self._values(selector)
        value = number.val if isinstance(number, promql.NumberLiteral) else None
        outcomes = {COMPARISONS[compare](known, value) for known in values if value is not None}
        if outcomes == {False} or (outcomes == {True} and len(values) > 1):
            always = "always" if True in outcomes else "never"
            known = ", ".join(f"{value:g}" for value in values)
            self.problems.append(f"{compare} {value:g} is {always} true: {name} has the values {known}")
        elif is_never(compare, left, right):
            is_count = "count" in selector.prettify() and left == (1, math.inf)
            known = (
                "where nothing matches there is no value; use absent(…)" if is_count else "{:g} to {:g}".format(*left)
            )
            known = f"the ratio is {known}" if ratio != ANY else known
            self.problems.append(f"{compare} {number.prettify()} is never true: {known}")
        if _TIMES.fullmatch(_compared(selector)) and 0 < right[0] == right[1] < _EARLIEST:
            self.problems.append(
                f"compares {_compared(selector)}, which is a time, with a duration: subtract it from time()"
            )
        counted = _compared(selector, _OVER_TIME) if node is self._root and value is not None else ""
        if counted in self.metrics and self.metrics[counted].counter and (compare, value) != ("==", 0):
            self.problems.append(f"compares {counted}, which counts since its program started: use increase(…)")

    def _contradict(self, node: Any) -> None:
        """Report sides of `and` that are never true together, and what `unless` always takes away."""
        left, right = node.lhs, node.rhs
        if str(node.op) == "unless":
            is_same = _difference(left)[0] == _difference(right)[0] != ""
            values, taken = (set(self._values(side)[1]) for side in (left, right))
            if right.prettify() in (left.prettify(), _difference(left)[0]) or (is_same and values and values <= taken):
                self.problems.append(f"is never true: unless takes away what {right.prettify()} has")
            return
        first, second = _difference(left), _difference(right)
        if not first[0] or first[0] != second[0] or (node.modifier and node.modifier.matching):
            return
        is_signed = first[1] == second[1] and not _SIGNS[first[2]] & _SIGNS[second[2]]
        values, others = (set(self._values(side)[1]) for side in (left, right))
        if (
            is_signed
            or (values and others and not values & others)
            or is_never("==", bounds(left, self.metrics), bounds(right, self.metrics))
        ):
            self.problems.append("has two sides of and that are never true together")

    def _values(self, node: Any) -> tuple[str, tuple[float, ...]]:
        """The metric of an expression with few possible values, and these; () if there are others."""
        match node:
            case promql.VectorSelector() if metric := self.metrics.get(node.name or ""):
                return str(node.name), metric.values
            case promql.ParenExpr():
                return self._values(node.expr)
            case promql.AggregateExpr() if str(node.op) in ("max", "min"):
                return self._values(node.expr)
            case promql.BinaryExpr() if node.modifier and node.modifier.return_bool:
                return "a comparison", (0, 1)
            case promql.BinaryExpr() if str(node.op) in COMPARISONS and isinstance(node.rhs, promql.NumberLiteral):
                name, values = self._values(node.lhs)
                return name, tuple(value for value in values if COMPARISONS[str(node.op)](value, node.rhs.val))
        return "", ()

    def _fixed(self, node: Any) -> dict[str, frozenset[str]]:
        """The labels of a node's series that have one of a few values, with these."""
        fixed: dict[str, frozenset[str]] = {}
        match node:
            case promql.VectorSelector():
                metric = self.metrics.get(node.name or "")
                known = metric.label_values if metric else {}
                for name in {*known, *(matcher.name for matcher in node.matchers.matchers)}:
                    matchers = [matcher for matcher in node.matchers.matchers if matcher.name == name]
                    values = known.get(name) or _candidates(matchers)
                    fixed |= {name: frozenset(v for v in values if _any_matches(matchers, [v]))} if values else {}
            case promql.MatrixSelector():
                fixed = self._fixed(node.vector_selector)
            case promql.AggregateExpr() if str(node.op) in _KEEPS_LABELS:
                fixed = self._fixed(node.expr)
            case promql.AggregateExpr() if str(node.op) != "count_values":
                wanted = set(node.modifier.labels if node.modifier else ())
                is_without = node.modifier is not None and "Without" in str(node.modifier.type)
                fixed = {
                    label: known for label, known in self._fixed(node.expr).items() if (label in wanted) != is_without
                }
            case promql.Call() if not node.func.name.startswith(("label_", "absent", "vector", "scalar")):
                fixed = {label: known for argument in node.args for label, known in self._fixed(argument).items()}
            case promql.BinaryExpr() if str(node.op) != "or" and not (node.modifier and node.modifier.matching):
                fixed = self._fixed(node.lhs) | self._fixed(node.rhs)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                fixed = self._fixed(node.expr)
        return fixed

    def _states(self, node: Any) -> frozenset[str]:
        """The labels of which a node has a series for each value."""
        match node:
            case promql.VectorSelector() if metric := self.metrics.get(node.name or ""):
                return metric.states - {label for label, values in self._fixed(node).items() if len(values) == 1}
            case promql.ParenExpr() | promql.UnaryExpr():
                return self._states(node.expr)
            case promql.BinaryExpr() if not _is_vector(node.rhs):
                return self._states(node.lhs)
        return frozenset()

    def _require_quantile(self, node: Any) -> None:
        if isinstance(node, promql.NumberLiteral) and not 0 <= node.val <= 1:
            self.problems.append(f"has the quantile {node.val:g}; quantiles are between 0 and 1")

    def _require(self, wanted: frozenset[str], there: frozenset[str], where: str) -> None:
        for label in sorted(wanted - there) if there or not self.problems else ():
            self.problems.append(f"has {where} ({label}), a label that its series do not have")


def _difference(node: Any) -> tuple[str, str, str]:
    """What a comparison compares, with what and how; a difference that is compared with 0 is split."""
    if not isinstance(node, promql.BinaryExpr) or str(node.op) not in COMPARISONS:
        return "", "", ""
    left: Any = node.lhs
    right: Any = node.rhs
    if isinstance(left, promql.BinaryExpr) and str(left.op) == "-" and right.prettify() == "0":
        left, right = left.lhs, left.rhs
    return left.prettify(), right.prettify(), str(node.op)


def _compared(node: Any, through: Container[str] = ()) -> str:
    """The name of the metric that is compared as it is, or summed, or by a function; "" for anything else."""
    match node:
        case promql.VectorSelector():
            return str(node.name or "")
        case promql.MatrixSelector():
            return _compared(node.vector_selector)
        case promql.ParenExpr():
            return _compared(node.expr, through)
        case promql.AggregateExpr() if str(node.op) in _SUMS:
            return _compared(node.expr, through)
        case promql.Call() if node.func.name in through:
            return _compared(node.args[0], through)
    return ""


def _any_matches(matchers: Iterable[Any], values: Iterable[str]) -> bool:
    return any(all(_matches(matcher.op, matcher.value, value) for matcher in matchers) for value in values)


def _candidates(matchers: Iterable[Any]) -> list[str]:
    """The only values that one of the matchers takes: those of `=`, and of `=~` with words alone; else none."""
    words = [
        matcher.value
        for matcher in matchers
        if matcher.op == promql.MatchOp.Equal or (matcher.op == promql.MatchOp.Re and _WORDS.fullmatch(matcher.value))
    ]
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
