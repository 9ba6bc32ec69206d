"""The expected answers of cluster-gitops/reachability.yaml, and the matrix of what is expected and what is so.

What the table does not list is asked too, so that a policy that opens more than it should is found: some other pod in
each namespace, a port that no pod of the table has, and pods elsewhere that carry the labels of those in the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fluobook.gitops import documents
from fluobook.kubernetes.policies import NODES, TCP, WORLD, Endpoint, Policies, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluobook.gitops.documents import Document

NAME = "reachability.yaml"
SAME_NAMESPACE = "same-namespace"
EVERYONE = "everyone"
ALL = "*"
Port = tuple[int, str]
OTHER: Port = (65000, TCP)
"""Stands for any port that a pod of the table does not list."""
ELSEWHERE = "elsewhere"
"""A namespace that the tree does not know."""


@dataclass(frozen=True)
class Cell:
    """One question and its answers: may `source` reach `target` on `port`?

    `row` is the line of the row that expects it to be open, 0 where none does; `why` is that row's reason. `is_listed`
    tells whether the table lists the target and its port.
    """

    source: str
    target: str
    port: int
    protocol: str
    verdict: Verdict[Document]
    row: int
    why: str
    is_listed: bool = True

    @property
    def is_as_expected(self) -> bool:
        """Whether it is open exactly where a row says so."""
        return self.verdict.allowed == bool(self.row)

    def question(self) -> str:
        """The question, for a person: "vmagent → loki:3100/TCP"."""
        return f"{self.source} → {self.target}:{self.port}/{self.protocol}"


@dataclass(frozen=True)
class Expected:
    """The table: its pods with their ports, and its rows of what is open."""

    document: Document

    @cached_property
    def pods(self) -> dict[str, Endpoint]:
        """Every pod of the table."""
        pods = self.document.data["pods"].items()
        return {name: Endpoint(name, pod["namespace"], pod["labels"]) for name, pod in pods}

    @cached_property
    def others(self) -> dict[str, Endpoint]:
        """Some other pod of each namespace, without a label."""
        spaces = dict.fromkeys(pod.namespace for pod in self.pods.values())
        return {f"other pods of {name}": Endpoint(f"other pods of {name}", name) for name in spaces}

    @cached_property
    def sources(self) -> dict[str, Endpoint]:
        """Every source: the pods and others beside them, pods elsewhere with the same labels, the nodes, the world."""
        alike = (Endpoint(f"{ELSEWHERE} labelled {name}", ELSEWHERE, pod.labels) for name, pod in self.pods.items())
        labelled = {one.name: one for one in alike if one.labels}
        return {**self.pods, **self.others, **labelled, "nodes": NODES, "world": WORLD}

    def ports(self, pod: str) -> list[Port]:
        """The ports that the table lists for a pod."""
        return [_port(text) for text in self.document.data["pods"][pod]["ports"]]

    def targets(self) -> Iterator[tuple[Endpoint, Port, bool]]:
        """Every port to ask for, and whether the table lists it: the pod's own, and all others of its namespace."""
        near: dict[str, set[Port]] = {}
        for name, pod in self.pods.items():
            near.setdefault(pod.namespace, {OTHER}).update(self.ports(name))
        for name, pod in {**self.pods, **self.others}.items():
            own = self.ports(name) if name in self.pods else []
            yield from ((pod, port, True) for port in own)
            yield from ((pod, port, False) for port in sorted(near[pod.namespace] - set(own)))

    def row(self, source: Endpoint, target: Endpoint, port: Port) -> tuple[int, str]:
        """The line and the reason of the first row that expects this to be open; 0 and "" if none does."""
        for index, row in enumerate(self.document.data["open"]):
            if self._is_of(row, source, target, port):
                return self.document.line("open", index), row["why"]
        return 0, ""

    def _is_of(self, row: dict[str, Any], source: Endpoint, target: Endpoint, port: Port) -> bool:
        froms, targets = _names(row["from"]), _names(row["to"])
        near = SAME_NAMESPACE in froms and source.namespace == target.namespace and not source.entity
        named = {source.name, f"namespace {source.namespace}"} & set(froms)
        return (
            (near or EVERYONE in froms or bool(named))
            and (ALL in targets or target.name in targets)
            and ("ports" not in row or port in map(_port, row["ports"]))
        )


def read(file: Path) -> Expected:
    """The table in a file.

    Raises:
        Misplaced: there is no such file, or it is no YAML.
    """
    return Expected(documents.read(file)[0])


def on_hosts(file: Path) -> list[Endpoint]:
    """The pods of the table that are on their node's own network: policies do not touch them, scrapes select them."""
    pods = read(file).document.data.get("on_hosts") or {}
    return [Endpoint(name, pod["namespace"], pod["labels"], host_network=True) for name, pod in pods.items()]


def matrix(expected: Expected, policies: Policies[Document]) -> Iterator[Cell]:
    """Every source against every port of every pod."""
    for target, (port, protocol), is_listed in expected.targets():
        here = policies.isolating(target)
        for source in expected.sources.values():
            if source.name != target.name:
                row, why = expected.row(source, target, (port, protocol))
                verdict = policies.evaluate(here, source, target, (port, protocol))
                if row and not verdict.allowed:
                    near = policies.nearest(source, target, (port, protocol))
                    verdict = Verdict(False, near or verdict.policies)  # noqa: FBT003 (what the verdict is)
                yield Cell(source.name, target.name, port, protocol, verdict, row, why, is_listed)


def _names(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _port(text: str | int) -> Port:
    number, _, protocol = str(text).partition("/")
    return int(number), protocol or TCP
