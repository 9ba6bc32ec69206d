"""The platform tree as tables: its Applications, what is wrong with it, who may reach whom, its secrets, its charts.

Nothing here asks anything but the files of the repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook import gitops, params
from fluobook.clients import sops
from fluobook.display.reach import matrix_table, sources_table
from fluobook.display.table import Cell, Table
from fluobook.errors import CheckFailed
from fluobook.gitops import documents, reachability
from fluobook.gitops.check import RULES, findings
from fluobook.gitops.rules.network import policies_of
from fluobook.gitops.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.gitops import Tree
    from fluobook.gitops.charts import Newer, Step
    from fluobook.gitops.reachability import Cell as Question
    from fluobook.gitops.snapshot import Finding

_TONES: dict[Step, str] = {
    "newest": "ok",
    "patch": "wait",
    "minor": "wait",
    "major": "wait",
    "unlisted": "bad",
    "retired": "bad",
    "unanswered": "bad",
}


@dataclass(frozen=True)
class TreeView:
    """The tree of one repository, as one phase sees it."""

    root: Path
    chosen: params.Params

    @cached_property
    def tree(self) -> Tree:
        """The tree with the phase's values."""
        platform = self.chosen.platform
        return gitops.for_phase(platform, gitops.read(self.root, platform.gitops.path))

    @cached_property
    def _findings(self) -> list[Finding]:
        return findings(self.root, path=self.chosen.platform.gitops.path)

    @cached_property
    def _questions(self) -> list[Question]:
        snapshot = Snapshot(self.root, self.chosen.platform.gitops.path)
        return list(reachability.matrix(reachability.read(snapshot.top), policies_of(snapshot)))

    def applications(self) -> Table:
        """Every Application: wave, project, chart or path, version and namespace."""
        return applications_table(self.tree)

    def findings(self) -> Table:
        """What `fluobook check` has to say: rule, file, line and remedy."""
        return findings_table(self._findings)

    def reachability(self) -> Table:
        """Who may reach whom on which port: a row for each port, a column for each namespace."""
        table = reachability.read(self.root / "cluster-gitops")
        return matrix_table(self._questions, {name: one.namespace for name, one in table.sources.items()})

    def reaching(self, target: str) -> Table:
        """Exactly who may reach one pod of the table, and why."""
        return sources_table(self._questions, target)

    def secrets(self) -> Table:
        """The encrypted files: which Secret, which keys, for whom; nothing is decrypted."""
        return secrets_table(self.root)

    def verify(self) -> Table:
        """Go on only if there is no finding.

        Raises:
            CheckFailed: there are; it lists them.
        """
        if found := self._findings:
            told = "\n".join(one.line_of_text() for one in found)
            raise CheckFailed(
                f"{len(found)} findings:\n{told}", remedy="correct them; `fluobook check` lists them again"
            )
        return Table(f"{len(RULES)} rules of `fluobook check`, no finding", [])

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return self._summary()._repr_mimebundle_(**options)

    def __str__(self) -> str:
        return self._summary().text()

    def _summary(self) -> Table:
        applications = self.tree.applications
        waves = len(gitops.waves(self.tree))
        note = f"{len(applications)} Applications in {waves} waves, {len(self.tree.projects)} projects"
        return Table(f"{self.tree.path}, as {self.chosen.phase} sees it", [], note=note)


def open_tree(phase: str, platform: Mapping[str, Any] | None = None) -> TreeView:
    """The platform tree of the repository that this is called in.

    Args:
        phase: a name in `params/`, or a path to such a file.
        platform: the platform as plain data, where papermill brought one; else the phase's file is read.

    Raises:
        ParamsError: the parameters are wrong.
        Rejected: the tree cannot be read; it names file and line.
    """
    root = params.repository_root(Path.cwd())
    if platform:
        return TreeView(root, params.parse({"phase": phase, "platform": dict(platform)}, root=root))
    return TreeView(root, params.load(phase, root=root))


def applications_table(tree: Tree) -> Table:
    """Every Application in the order in which Argo CD syncs them."""
    rows = [
        [one.wave, one.name, one.project, one.chart or one.path, one.version, one.namespace]
        for one in tree.applications
    ]
    return Table("Applications", ["wave", "application", "project", "chart or path", "version", "namespace"], rows)


def findings_table(found: Sequence[Finding]) -> Table:
    """Each finding with its place and its remedy."""
    rows = [[Cell(one.rule, "bad"), f"{one.file}:{one.line}", one.message, one.remedy] for one in found]
    return Table("findings", ["rule", "place", "finding", "remedy"], rows, note=f"{len(found)} findings")


def secrets_table(root: Path) -> Table:
    """Each encrypted file of the GitOps tree, as it stands in Git."""
    rows = []
    for one in gitops.encrypted_files(root):
        shown = {key: value for document in documents.read(one.file) for key, value in document.data.items()}
        keys = [key for field in ("data", "stringData") for key in shown.get(field) or {}]
        named = shown.get("metadata") or {}
        secret = f"{named.get('namespace', '')}/{named.get('name', '')}" if named else ""
        tone = "ok" if sops.is_encrypted(one.file) and one.recipients == one.wanted else "bad"
        where = one.file.relative_to(root).as_posix()
        rows.append([Cell(where, tone), secret, ", ".join(keys), ", ".join(sorted(one.recipients))])
    note = "✓ encrypted for exactly those that .sops.yaml names"
    return Table("secrets in Git", ["file", "secret", "keys", "for"], rows, note=note)


def versions_table(found: Sequence[Newer]) -> Table:
    """Each chart: the version it is pinned at, the newest stable one, and how far apart they are."""
    rows = [[Cell(one.step, _TONES[one.step]), one.application, one.chart, one.pinned, one.newest] for one in found]
    counts = [f"{sum(one.step == step for one in found)} {step}" for step in _TONES]
    note = ", ".join(count for count in counts if not count.startswith("0 "))
    return Table("chart versions", ["newest is a", "application", "chart", "pinned", "newest stable"], rows, note=note)
