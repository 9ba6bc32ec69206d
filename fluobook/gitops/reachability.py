"""The expected connections of reachability.yaml, compared with what the network policies allow.

What the table does not list is evaluated too, so that a policy that allows too much is found: some other pod in each
namespace, a port that no pod of the table has, and pods in another namespace that carry the labels of those in the
table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fluobook.gitops.charts import pod_names
from fluobook.kubernetes.policies import NODES, TCP, WORLD, Endpoint, Policies, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fluobook.gitops.documents import Document, Position

NAME = "reachability.yaml"
SAME_NAMESPACE = "same-namespace"
EVERYONE = "everyone"
ALL = "*"
Port = tuple[int, str]
OTHER: Port = (65000, TCP)
"""Stands for any port that a pod of the table does not list."""
ELSEWHERE = "elsewhere"
"""A namespace that the tree does not have."""


@dataclass(frozen=True)
class Cell:
    """One question with its two answers: may `source` connect to `target` on `port`?

    `row` is the position of the row that expects it to be open, None where none does; `why` is the reason there.
    `is_listed` is whether the table lists the target and its port.
    """

    source: str
    target: str
    port: int
    protocol: str
    verdict: Verdict[Document]
    row: Position | None
    why: str
    is_listed: bool = True

    @property
    def is_as_expected(self) -> bool:
        """Whether it is open exactly where a row expects it."""
        return self.verdict.allowed == bool(self.row)

    def question(self) -> str:
        """The question, for a person: "vmagent → loki:3100/TCP"."""
        return f"{self.source} → {self.target}:{self.port}/{self.protocol}"


@dataclass(frozen=True)
class Table:
    """The pods with their ports, and the rows of what is open; upstream's table and the operator's together.

    `rendered` has the pods that charts bring, each with the position of its Application.
    """

    documents: tuple[Document, ...]
    rendered: Mapping[str, tuple[Position, dict[str, Any]]]
    dropped_namespaces: frozenset[str] = frozenset()

    @cached_property
    def _described(self) -> dict[str, dict[str, Any]]:
        pods: dict[str, dict[str, Any]] = {}
        for document in self.documents[1:]:
            pods |= document.data.get("pods") or {}
        pods |= {name: pod for name, (_, pod) in self.rendered.items()}  # a name in both is upstream's
        for document in self.documents[:1]:
            pods |= document.data.get("pods") or {}
        kept = {name: pod for name, pod in pods.items() if pod["namespace"] not in self.dropped_namespaces}
        return dict(sorted(kept.items(), key=lambda item: (item[1]["namespace"], item[0])))

    @cached_property
    def _endpoints(self) -> dict[str, Endpoint]:
        return {
            name: Endpoint(
                name,
                pod["namespace"],
                pod["labels"],
                host_network=pod.get("host", False),
                named_ports={port: _port(text)[0] for port, text in _named(pod).items()},
            )
            for name, pod in self._described.items()
        }

    @cached_property
    def pods(self) -> dict[str, Endpoint]:
        """Every pod that policies apply to, by its name."""
        return {name: pod for name, pod in self._endpoints.items() if not pod.host_network}

    @cached_property
    def host_network_pods(self) -> list[Endpoint]:
        """The pods on the host network: policies do not apply to them, scrapes select them."""
        return [pod for pod in self._endpoints.values() if pod.host_network]

    @cached_property
    def rows(self) -> list[tuple[Position, dict[str, Any]]]:
        """Every row with its position."""
        return [
            (document.at("open", index), row)
            for document in self.documents
            for index, row in enumerate(document.data.get("open") or ())
        ]

    @cached_property
    def names(self) -> set[str]:
        """What a row may name, of namespaces that are dropped too."""
        everything = Table(self.documents, self.rendered)
        namespaces = {f"namespace {pod.namespace}" for pod in everything.pods.values()}
        return {*everything.sources, *namespaces, *pod_names(), SAME_NAMESPACE, EVERYONE, ALL}

    @property
    def strangers(self) -> Iterator[tuple[Position, str]]:
        """The rows that name what no pod is, and the name: they expect nothing."""
        for position, row in self.rows:
            yield from ((position, name) for name in listed(row["from"]) + listed(row["to"]) if name not in self.names)

    @property
    def repeated(self) -> Iterator[tuple[Position, str]]:
        """The pods of the operator's table whose names upstream's pods have."""
        upstream = self.rendered.keys() | {
            name for table in self.documents[:1] for name in table.data.get("pods") or {}
        }
        for document in self.documents[1:]:
            for name in sorted(upstream & (document.data.get("pods") or {}).keys()):
                yield document.at("pods", name), name

    def at(self, pod: str) -> Position:
        """The position of a pod: in the table, or of the Application that brings it; of the table if there is none."""
        if pod in self.rendered:
            return self.rendered[pod][0]
        owners = [document for document in self.documents if pod in (document.data.get("pods") or {})]
        return (owners or self.documents)[0].at("pods", pod)

    @cached_property
    def others(self) -> dict[str, Endpoint]:
        """Some other pod of each namespace, without a label."""
        namespaces = dict.fromkeys(pod.namespace for pod in self.pods.values())
        return {f"other pods of {name}": Endpoint(f"other pods of {name}", name) for name in namespaces}

    @cached_property
    def sources(self) -> dict[str, Endpoint]:
        """The pods, others beside them, pods elsewhere with the same labels, the nodes, and the world."""
        alike = (Endpoint(f"{ELSEWHERE} labelled {name}", ELSEWHERE, pod.labels) for name, pod in self.pods.items())
        labelled = {endpoint.name: endpoint for endpoint in alike if endpoint.labels}
        return {**self.pods, **self.others, **labelled, "nodes": NODES, "world": WORLD}

    def ports(self, pod: str) -> list[Port]:
        """The ports that the table lists for a pod."""
        pod_ports = self._described[pod]["ports"]
        return [_port(text) for text in (pod_ports.values() if isinstance(pod_ports, dict) else pod_ports)]

    def named_ports(self, pod: str) -> dict[str, Port]:
        """The ports that the table lists for a pod by a name."""
        return {name: _port(text) for name, text in _named(self._described[pod]).items()}

    def targets(self) -> Iterator[tuple[Endpoint, Port, bool]]:
        """Every pod and port, and whether the table lists it: the pod's own ports, and all others of its namespace."""
        namespace_ports: dict[str, set[Port]] = {}
        for name, pod in self.pods.items():
            namespace_ports.setdefault(pod.namespace, {OTHER}).update(self.ports(name))
        for name, pod in {**self.pods, **self.others}.items():
            own = self.ports(name) if name in self.pods else []
            yield from ((pod, port, True) for port in own)
            yield from ((pod, port, False) for port in sorted(namespace_ports[pod.namespace] - set(own)))

    def row(self, source: Endpoint, target: Endpoint, port: Port) -> tuple[Position | None, str]:
        """The position and the reason of the first row that expects this to be open; None and "" if none does."""
        return _first(self.rows_to(target, port), source, target)

    def rows_to(self, target: Endpoint, port: Port) -> list[tuple[Position, dict[str, Any], set[str]]]:
        """The rows about a port of a pod, with the sources that they name."""
        return [
            (position, row, set(listed(row["from"])))
            for position, row in self.rows
            if {ALL, target.name} & set(listed(row["to"]))
            if "ports" not in row or port in map(_port, row["ports"])
        ]


def _first(
    rows: Iterable[tuple[Position, dict[str, Any], set[str]]], source: Endpoint, target: Endpoint
) -> tuple[Position | None, str]:
    names = {EVERYONE, source.name, f"namespace {source.namespace}"}
    if source.namespace == target.namespace and not source.entity:
        names.add(SAME_NAMESPACE)
    return next(
        ((position, row["why"]) for position, row, sources in rows if not names.isdisjoint(sources)), (None, "")
    )


def matrix(table: Table, policies: Policies[Document]) -> Iterator[Cell]:
    """Every source against every port of every pod."""
    for target, port, is_listed in table.targets():
        sources = [source for source in table.sources.values() if source.name != target.name]
        rows = table.rows_to(target, port)
        for source, verdict in zip(sources, policies.verdicts(sources, target, port), strict=True):
            row, why = _first(rows, source, target)
            nearest = policies.nearest(source, target, port) if row and not verdict.allowed else ()
            decided = Verdict(verdict.allowed, nearest or verdict.policies)
            yield Cell(source.name, target.name, *port, decided, row, why, is_listed)


def _named(pod: dict[str, Any]) -> dict[str, Any]:
    return pod["ports"] if isinstance(pod["ports"], dict) else {}


def listed(value: str | list[str]) -> list[str]:
    """The sources or targets of a row as a list."""
    return [value] if isinstance(value, str) else value


def _port(text: str | int) -> Port:
    number, _, protocol = str(text).partition("/")
    return int(number), protocol or TCP
