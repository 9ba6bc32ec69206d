"""What Argo CD will fetch: our repository at its revision, the repositories of others, and every chart at its pin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook import gitops
from fluobook.clients import git, helm
from fluobook.errors import NotFound
from fluobook.gitops.patches import own_source
from fluobook.stages.core.check import Check, CheckGroup, error_of
from fluobook.stages.core.executor import in_parallel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fluobook.context import RunContext
    from fluobook.gitops import Application


def _own(context: RunContext) -> Iterator[Check]:
    told = context.platform.gitops
    url = own_source(context.platform)
    commit = git.ls_remote(url, told.revision, ca_file=context.platform.ca_file(url))
    context.journal.write(
        "evidence", stage="preflight", repository=told.repository, revision=told.revision, commit=commit
    )
    yield Check(
        "our Git repository answers, and has the revision", passed=True, result=f"{told.revision} of {told.repository}"
    )


def _others(context: RunContext) -> Iterator[Check]:
    tree = gitops.for_phase(context.platform, gitops.read(context.root, context.platform.gitops.path))
    foreign = [one for one in tree.applications if one.path and not tree.is_ours(one)]
    charts = [one for one in tree.applications if one.chart]
    yield _all("every other Git source answers, and has its revision", foreign, lambda one: _revision(context, one))
    yield _all("every chart source answers, and has the pinned version", charts, lambda one: _chart(context, one))


def _all(claim: str, applications: Iterable[Application], look: Callable[[Application], None]) -> Check:
    asked = list(applications)
    errors = in_parallel(lambda one: error_of(lambda: look(one)), asked)
    wrong = [(one, error) for one, error in zip(asked, errors, strict=True) if error]
    told = "; ".join(f"{one.name}: {error.message}" for one, error in wrong)
    evidence = f"{len(asked) - len(wrong)} of {len(asked)}" + (f"; {told}" if told else "")
    remedies = dict.fromkeys(error.remedy for _, error in wrong if error.remedy)
    return Check(claim, not wrong, evidence, "; ".join(remedies))


def _revision(context: RunContext, one: Application) -> None:
    git.ls_remote(one.repo, one.version, ca_file=context.platform.ca_file(one.repo))


def _chart(context: RunContext, one: Application) -> None:
    listed = {
        entry.version.removeprefix("v")
        for entry in helm.versions(one.repo, one.chart, ca_file=context.platform.ca_file(one.repo))
    }
    if one.version.removeprefix("v") not in listed:
        raise NotFound(
            f"{one.repo} does not list {one.chart} {one.version}",
            system="chart repository",
            remedy=f"correct targetRevision in {one.file.relative_to(context.root)}",
        )


GROUPS = (
    CheckGroup("our Git repository answers, and has the revision", _own),
    CheckGroup("the GitOps tree can be read", _others),
)
