"""The platform tree as tables: Applications, findings, secrets, chart versions, and who may reach whom.

Reachability is a matrix: a row for each port of each pod, a column for each namespace that may connect to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from fluobook import gitops
from fluobook.clients import sops
from fluobook.display.table import Cell, Displayed, Table
from fluobook.errors import CheckFailed
from fluobook.gitops import Tree, documents, reachability
from fluobook.gitops.check import RULES, findings
from fluobook.gitops.documents import STRICT, Document, Finding
from fluobook.gitops.reachability import Cell as Question
from fluobook.gitops.rules.network import policies_of
from fluobook.gitops.snapshot import Snapshot
from fluobook.gitops.tree import settings_of
from fluobook.gitops.versions import Row, Step
from fluobook.kubernetes.policies import Policies
from fluobook.params import Params

_TONES: dict[Step, str] = {
    "newest": "ok",
    "patch": "wait",
    "minor": "wait",
    "major": "wait",
    "unlisted": "bad",
    "retired": "bad",
    "unknown": "same",
    "unanswered": "bad",
}


@dataclass(frozen=True)
class PlatformTree(Displayed):
    """The GitOps tree as one phase sees it, as tables. Reads only the files of the repository.

    Example:
        runbook.tree.applications()         # every Application, in the order of the waves
        runbook.tree.findings()             # what `fluobook check` reports
        runbook.tree.reachability()         # who may connect to whom
        runbook.tree.reaching("rabbitmq")   # the same for one pod, with reasons
    """

    root: Path
    chosen: Params

    @cached_property
    def tree(self) -> Tree:
        """The tree as data, with the values of the phase."""
        platform = self.chosen.platform
        return gitops.for_phase(platform, gitops.of(platform, self.root))

    @cached_property
    def _snapshot(self) -> Snapshot:
        return Snapshot(self.root, *settings_of(self.chosen.platform), STRICT)

    @cached_property
    def policies(self) -> Policies[Document]:
        """The network policies of the tree."""
        return policies_of(self._snapshot)

    @cached_property
    def _findings(self) -> list[Finding]:
        path, without, has = settings_of(self.chosen.platform)
        return findings(self.root, path=path, without=without, has=has)

    @cached_property
    def _questions(self) -> list[Question]:
        return list(reachability.matrix(self._snapshot.table, self.policies))

    def applications(self) -> Table:
        """Every Application: wave, project, chart or path, version and namespace."""
        rows = [
            [app.wave, app.name, app.project, app.chart or app.path, app.version, app.namespace]
            for app in self.tree.applications
        ]
        return Table("Applications", ["wave", "application", "project", "chart or path", "version", "namespace"], rows)

    def findings(self) -> Table:
        """What `fluobook check` reports: rule, file, line and remedy."""
        rows = [[Cell(f.rule, "bad"), f"{f.file}:{f.line}", f.message, f.remedy] for f in self._findings]
        return Table("findings", ["rule", "place", "finding", "remedy"], rows, note=f"{len(rows)} findings")

    def reachability(self) -> Table:
        """Who may connect to whom: a row for each port, a column for each namespace."""
        sources = self._snapshot.table.sources
        return matrix_table(self._questions, {name: pod.namespace for name, pod in sources.items()})

    def reaching(self, target: str) -> Table:
        """Which pods may connect to one pod of reachability.yaml, on each of its ports, and why."""
        return sources_table(self._questions, target)

    def secrets(self) -> Table:
        """The encrypted files: Secret, keys and recipients. Nothing is decrypted."""
        rows = []
        for file in gitops.encrypted_files(self.root):
            content = {key: value for document in documents.read(file.file) for key, value in document.data.items()}
            keys = [key for part in ("data", "stringData") for key in content.get(part) or {}]
            metadata = content.get("metadata")
            secret = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}" if metadata else ""
            tone = "ok" if sops.is_encrypted(file.file) and file.recipients == file.wanted else "bad"
            path = file.file.relative_to(self.root).as_posix()
            rows.append([Cell(path, tone), secret, ", ".join(keys), ", ".join(sorted(file.recipients))])
        note = "✓ encrypted for exactly the recipients that .sops.yaml names"
        return Table("secrets in Git", ["file", "secret", "keys", "recipients"], rows, note=note)

    def verify(self) -> Table:
        """Require that there is no finding.

        Raises:
            CheckFailed: there are findings; the message lists them.
        """
        if self._findings:
            listed = "\n".join(finding.line_of_text() for finding in self._findings)
            raise CheckFailed(
                f"{len(self._findings)} findings:\n{listed}", remedy="fix them; `fluobook check` lists them again"
            )
        return Table(f"{len(RULES)} rules of `fluobook check`, no finding", [])

    def table(self) -> Table:
        """The tree in one line: how many Applications, waves and projects it has."""
        applications, waves = self.tree.applications, len(gitops.waves(self.tree))
        note = f"{len(applications)} Applications in {waves} waves, {len(self.tree.projects)} projects"
        return Table(f"{self.tree.path}, as {self.chosen.phase} sees it", [], note=note)


def versions_table(rows: Sequence[Row]) -> Table:
    """Each version that is pinned or runs: the newest ones, the end of its support, and what keeps the newest out."""
    columns = ["status", "component", "pinned", "running", "newest patch", "newest", "end of support", "blocked by"]
    cells = [
        [
            *(Cell(row.step, _TONES[row.step]), row.pin.component, row.pin.version, row.running, row.patch, row.newest),
            *(Cell(row.end, "bad") if row.ended else row.end, row.blocked),
        ]
        for row in rows
    ]
    counts = [f"{sum(row.step == step for row in rows)} {step}" for step in _TONES]
    note = ", ".join(count for count in counts if not count.startswith("0 "))
    return Table("versions", columns, cells, note=note, limit=len(rows))


ALL, SOME, NONE = "●", "◐", "·"
SHORT, SHORT_ENOUGH = 4, 6
"""Letters of a shortened column name, or more where two would be equal; and of the longest name that is kept."""


def matrix_table(questions: Sequence[Question], namespaces: Mapping[str, str]) -> Table:
    """The matrix of the ports that reachability.yaml lists, and of others with an unexpected answer.

    Args:
        questions: every source against every port, answered.
        namespaces: the namespace of each source; "" for a source without one, which gets its own column.
    """
    columns = list(dict.fromkeys(sorted(namespaces[q.source] or q.source for q in questions)))
    heads = {name: _short(name, columns) for name in columns}
    rows = []
    for _, group in groupby(questions, key=lambda q: (q.target, q.port, q.protocol)):
        asked = list(group)
        good = all(q.is_as_expected for q in asked)
        if good and not asked[0].is_listed:
            continue
        port = f"{asked[0].port}/{asked[0].protocol}"
        by_column = {name: [q for q in asked if (namespaces[q.source] or q.source) == name] for name in columns}
        rows.append(
            [Cell(asked[0].target, "ok" if good else "bad"), port, *(_mark(by_column[name]) for name in columns)]
        )
    legend = ", ".join(f"{head} {name}" for name, head in heads.items() if head != name)
    wrong = sum(not q.is_as_expected for q in questions)
    note = (
        f"{ALL} every pod of the namespace, {SOME} some of them, {NONE} none; ✓ as reachability.yaml expects\n"
        f"{legend}\n{len(questions)} questions, {wrong} not answered as expected"
    )
    return Table("who may reach whom", ["pod", "port", *heads.values()], rows, note=note, limit=1000)


def sources_table(questions: Sequence[Question], target: str) -> Table:
    """Who may reach one pod, on each of its ports, and the reasons that reachability.yaml gives."""
    rows = []
    for (port, protocol), group in groupby(
        (q for q in questions if q.target == target), key=lambda q: (q.port, q.protocol)
    ):
        asked = list(group)
        tone = "ok" if all(q.is_as_expected for q in asked) else "bad"
        allowed = [q for q in asked if q.verdict.allowed]
        sources = "everyone" if len(allowed) == len(asked) else ", ".join(q.source for q in allowed) or "nobody"
        rows.append(
            [Cell(f"{port}/{protocol}", tone), sources, "; ".join(dict.fromkeys(q.why for q in allowed if q.why))]
        )
    return Table(f"who may reach {target}", ["port", "source", "why"], rows)


def _mark(asked: Sequence[Question]) -> str:
    allowed = sum(q.verdict.allowed for q in asked)
    if not asked:
        return ""  # the pod is alone in its namespace
    return NONE if not allowed else ALL if allowed == len(asked) else SOME


def _short(name: str, names: Sequence[str]) -> str:
    """The shortest prefix that no other name has; a name that is a prefix of another is kept whole."""
    for length in range(SHORT, len(name)) if len(name) > SHORT_ENOUGH else ():
        if not any(other.startswith(name[:length]) for other in names if other != name):
            return name[:length]
    return name
