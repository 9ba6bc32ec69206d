"""Checks of what the platform is downloaded from: the Talos Image Factory, Git and the chart repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook import gitops
from fluobook.clients import git, helm
from fluobook.errors import NotFound
from fluobook.gitops.root import own_source
from fluobook.machine import schematic
from fluobook.stages.core.check import Check, CheckGroup, error_of
from fluobook.stages.core.executor import in_parallel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fluobook.context import RunContext
    from fluobook.gitops import Application
    from fluobook.params import Platform


def _image_factory(context: RunContext) -> Iterator[Check]:
    version = context.platform.versions.talos.removeprefix("v")
    versions = context.factory.versions()
    listed = f"v{version}" in versions
    same_minor = [v for v in versions if v.startswith(f"v{version.rpartition('.')[0]}.")]
    yield Check(
        f"the Image Factory has Talos {version}",
        listed,
        schematic.FACTORY if listed else f"it has {', '.join(same_minor) or 'none of that minor'}",
        "set versions.talos in the params, or the pin in params/versions.yaml, to one that it has",
    )
    if not listed:
        return
    ours = schematic.parse((context.root / "talos" / "schematic.yaml").read_text())
    wanted = schematic.extensions(ours)
    absent = sorted(set(wanted) - set(context.factory.extensions(version)))
    yield Check(
        "it has the extensions of talos/schematic.yaml for that version",
        not absent,
        f"missing: {', '.join(absent)}" if absent else ", ".join(wanted) or "none requested",
        "correct their names in talos/schematic.yaml, or choose a Talos version that has them",
    )
    schematic_id = schematic.schematic_id(ours)
    known = context.factory.known(schematic_id)
    yield Check(
        "its id of the schematic is the one computed here",
        # The factory may not know the schematic yet; stage 1 uploads it and compares the ids again.
        known is None or schematic.parse(known) == schematic.parse(schematic.canonical(ours)),
        schematic_id[:16],
        "simplify talos/schematic.yaml: fluobook cannot compute the canonical form of its values",
    )


def _own_repository(context: RunContext) -> Iterator[Check]:
    settings = context.platform.gitops
    url = own_source(context.platform)
    commit = git.ls_remote(url, settings.revision, ca_file=context.platform.ca_file(url))
    context.journal.write(
        "evidence", stage="preflight", repository=settings.repository, revision=settings.revision, commit=commit
    )
    result = f"{settings.revision} of {settings.repository}"
    yield Check("our Git repository is reachable and has the revision", passed=True, result=result)


def _other_sources(context: RunContext) -> Iterator[Check]:
    platform = context.platform
    tree = gitops.for_phase(platform, gitops.read(context.root, platform.gitops.path))
    foreign = [app for app in tree.applications if app.path and not tree.is_ours(app)]
    charts = [app for app in tree.applications if app.chart]

    def revision(app: Application) -> None:
        git.ls_remote(app.repo, app.version, ca_file=platform.ca_file(app.repo))

    def chart(app: Application) -> None:
        _require_chart_version(platform, app, app.file.relative_to(context.root).as_posix())

    yield _for_each("every other Git source is reachable and has its revision", foreign, revision)
    yield _for_each("every chart source is reachable and has the pinned version", charts, chart)


def _for_each(name: str, applications: Iterable[Application], check: Callable[[Application], None]) -> Check:
    """One check over many Applications: `check` raises for each that fails."""
    apps = list(applications)
    errors = in_parallel(lambda app: error_of(lambda: check(app)), apps)
    failed = [(app, error) for app, error in zip(apps, errors, strict=True) if error]
    details = "; ".join(f"{app.name}: {error.message}" for app, error in failed)
    result = f"{len(apps) - len(failed)} of {len(apps)}" + (f"; {details}" if details else "")
    return Check(
        name, not failed, result, "; ".join(dict.fromkeys(error.remedy for _, error in failed if error.remedy))
    )


def _require_chart_version(platform: Platform, app: Application, file: str) -> None:
    entries = helm.versions(app.repo, app.chart, ca_file=platform.ca_file(app.repo))
    if app.version.removeprefix("v") not in {entry.version.removeprefix("v") for entry in entries}:
        raise NotFound(
            f"{app.repo} does not list {app.chart} {app.version}",
            system="chart repository",
            remedy=f"correct targetRevision in {file}",
        )


GROUPS = (
    CheckGroup("the Image Factory is reachable", _image_factory),
    CheckGroup("our Git repository is reachable and has the revision", _own_repository),
    CheckGroup("the GitOps tree can be read", _other_sources),
)
