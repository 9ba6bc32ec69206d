"""Checks of everything outside Proxmox VE: programs, keys and secrets on this machine; the sources of all downloads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath

from fluobook import gitops
from fluobook.clients import git, helm, sops
from fluobook.clients.tools import REQUIRED, inventory
from fluobook.cluster_secrets import OWN_KEY, ClusterSecrets
from fluobook.context import RunContext
from fluobook.errors import PHASE, NotFound
from fluobook.failures import present
from fluobook.files import read_text, write_text
from fluobook.gitops import Application
from fluobook.gitops.root import own_source
from fluobook.gitops.secrets import creation_rules, encrypted_files, lab_recipients
from fluobook.gitops.versions import BASE, unsupported
from fluobook.machine import schematic
from fluobook.params import DHCP_SERVERS, Platform, reservations
from fluobook.stages.core.check import Check, CheckGroup, error_of
from fluobook.stages.core.executor import in_parallel

_CREDENTIALS = re.compile(
    r"(^|/)(kubeconfig[^/]*|talosconfig[^/]*|keys\.txt|[^/]*\.age|[^/]*\.agekey|age\.key"
    r"|[^/]*\.tfstate[^/]*|[^/]*\.tfvars|secrets\.yaml|\.env)$"
)
_HARMLESS = re.compile(r"(^|/)params/lab/[^/]*\.age$|\.py$|\.md$|\.ipynb$|\.example$|\.sample$")


def _programs(context: RunContext) -> Iterator[Check]:
    tools = inventory()
    context.journal.write("evidence", stage="preflight", tools={t.name: f"{t.version} ({t.source})" for t in tools})
    missing = [tool.source for tool in tools if not tool.version]
    yield Check(
        "the required programs are installed in supported versions",
        not missing,
        "; ".join(missing) or ", ".join(f"{name} {REQUIRED[name].text()}" for name in sorted(REQUIRED)),
        "`fluobook tools` lists what is installed; install requirements.lock again, or put the program on the PATH",
    )


def _dhcp(context: RunContext) -> Iterator[Check]:
    if context.platform.network.addressing != "dhcp":
        return
    run_folder = context.journal.path.parent if context.journal.path else context.home
    for server in DHCP_SERVERS:
        write_text(run_folder / "dhcp" / f"{server}.conf", reservations(context.platform, server))
    result = f"{', '.join(DHCP_SERVERS)} in {run_folder / 'dhcp'}"
    yield Check("the DHCP reservations are written", passed=True, result=result)


def _age_key(context: RunContext) -> Iterator[Check]:
    if context.policy.refuses_lab_key:
        recipients = {recipient for _, named in creation_rules(context.root) for recipient in named}
        public = sorted(recipients & lab_recipients(context.root))
        yield Check(
            "no file of the tree is encrypted for the lab's key, which is public",
            not public,
            f".sops.yaml names {', '.join(public)}, the lab's" if public else f"{len(recipients)} recipients",
            OWN_KEY,
        )
    recipient = context.secrets.recipient()
    yield Check("the age key is present", passed=True, result=recipient)
    yield _is_recipient(context.root, context.secrets, recipient)
    yield _decrypts(context.root, context.secrets)


def _is_recipient(root: Path, secrets: ClusterSecrets, recipient: str) -> Check:
    encrypted = encrypted_files(root)
    rules = [pattern.pattern for pattern, recipients in creation_rules(root) if recipient not in recipients]
    files = [_shown(entry.file, root) for entry in encrypted if recipient not in entry.recipients]
    if secrets.path.exists() and recipient not in sops.recipients(secrets.path):
        files.append(_shown(secrets.path, root))
    wrong = [*(f"rule {pattern} of .sops.yaml" for pattern in rules), *dict.fromkeys(files)]
    return Check(
        "the age key is a recipient in .sops.yaml and in every encrypted file",
        not wrong,
        f"not in {', '.join(wrong)}" if wrong else f"{len(encrypted)} files",
        f"add {recipient} to .sops.yaml, then for each file named: sops updatekeys FILE; or name the right key in the "
        "params (secrets.age_key)",
    )


def _decrypts(root: Path, secrets: ClusterSecrets) -> Check:
    """One file stands for all: it shows a damaged key, or a file edited without sops."""
    files = [entry.file for entry in encrypted_files(root) if sops.is_encrypted(entry.file)]
    if files:
        sops.decrypt(files[0], secrets.age_key())
    result = _shown(files[0], root) if files else "nothing is encrypted yet"
    return Check("the age key decrypts the secrets of the tree", passed=True, result=result)


def _tracked_secrets(context: RunContext) -> Iterator[Check]:
    name = "Git tracks no plaintext secret"
    try:
        git.root(context.root)
    except NotFound:
        yield Check(name, passed=True, result="this is not a Git repository")
        return
    files = plaintext_secrets(path.relative_to(context.root) for path in git.tracked(context.root))
    yield Check(
        name,
        not files,
        ", ".join(files) or "no kubeconfig, talosconfig, age key or state file",
        f"git rm --cached {' '.join(files)}, then replace the credentials in them: they stay in Git's history",
    )


def plaintext_secrets(paths: Iterable[PurePath]) -> list[str]:
    """The files, by their names, that hold credentials in plaintext. The lab's key is public and not listed."""
    names = (path.as_posix() for path in paths)
    return sorted(name for name in names if _CREDENTIALS.search(name) and not _HARMLESS.search(name))


def _shown(file: Path, root: Path) -> str:
    """The path in the repository, or only the name of a file elsewhere: the folder differs from lab to lab."""
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


LOCAL = (
    CheckGroup("the required programs can be found", _programs),
    CheckGroup("the DHCP reservations are written", _dhcp),
    CheckGroup("the age key is present and decrypts the secrets of the tree", _age_key),
    CheckGroup("Git tracks no plaintext secret", _tracked_secrets),
)


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
    ours = schematic.parse(read_text(context.root / "talos" / "schematic.yaml"))
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
    tree = gitops.for_phase(platform, gitops.of(platform, context.root))
    foreign = [app for app in tree.applications if app.path and not tree.is_ours(app)]
    charts = [app for app in tree.applications if app.chart]

    def revision(app: Application) -> None:
        git.ls_remote(app.repo, app.version, ca_file=platform.ca_file(app.repo))

    def chart(app: Application) -> None:
        _require_chart_version(platform, app, app.file.relative_to(context.root).as_posix())

    yield _for_each("every other Git source is reachable and has its revision", foreign, revision)
    yield _for_each("every chart source is reachable and has the pinned version", charts, chart)


def _support(context: RunContext) -> Iterator[Check]:
    platform = context.platform
    tree = gitops.for_phase(platform, gitops.of(platform, context.root))
    found = list(unsupported(platform, tree.applications))
    base = [each for each in found if each.app.chart in BASE]
    yield Check(
        f"network and storage of the tree support Kubernetes {platform.versions.kubernetes}",
        not base,
        "; ".join(each.reason for each in found) or "each by its row in params/versions.yaml",
        "; ".join(each.remedy for each in base),
    )


def _one_of_each_kind(remedies: Iterable[str]) -> Iterable[str]:
    """Remedies that differ in their command alone (twelve charts of which none answers) are given once."""
    first: dict[str, str] = {}
    for remedy in filter(None, remedies):
        first.setdefault(remedy.partition("; next: ")[0], remedy)
    return first.values()


def _for_each(name: str, applications: Iterable[Application], check: Callable[[Application], None]) -> Check:
    """One check over many Applications: `check` raises for each that fails."""
    apps = list(applications)
    errors = in_parallel(lambda app: error_of(lambda: check(app)), apps)
    failed = [(app, error) for app, error in zip(apps, errors, strict=True) if error]
    details = "; ".join(f"{app.name}: {error.message}" for app, error in failed)
    result = f"{len(apps) - len(failed)} of {len(apps)}" + (f"; {details}" if details else "")
    remedies = _one_of_each_kind(error.remedy or present(error, phase=PHASE).advice for _, error in failed)
    return Check(name, not failed, result, "; ".join(remedies), error=failed[0][1] if failed else None)


def _require_chart_version(platform: Platform, app: Application, file: str) -> None:
    entries = helm.versions(app.repo, app.chart, ca_file=platform.ca_file(app.repo))
    if app.version.removeprefix("v") not in {entry.version.removeprefix("v") for entry in entries}:
        raise NotFound(
            f"{app.repo} does not list {app.chart} {app.version}",
            system="chart repository",
            remedy=f"correct targetRevision in {file}",
        )


SOURCES = (
    CheckGroup("the Image Factory is reachable", _image_factory),
    CheckGroup("our Git repository is reachable and has the revision", _own_repository),
    CheckGroup("the GitOps tree can be read", _other_sources),
    CheckGroup("the programs of the tree support the version of Kubernetes", _support),
)
