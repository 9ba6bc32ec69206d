"""Checks of this machine and this repository: programs, the age key, tracked secrets, DHCP reservations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fluobook.clients import git, sops
from fluobook.clients.tools import WANTED, inventory
from fluobook.cluster_secrets import OWN_KEY
from fluobook.errors import NotFound
from fluobook.gitops.secrets import creation_rules, encrypted_files, lab_recipients
from fluobook.journal.folder import write_text
from fluobook.params import DHCP_SERVERS, reservations
from fluobook.stages.core.check import Check, CheckGroup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path, PurePath

    from fluobook.cluster_secrets import ClusterSecrets
    from fluobook.context import RunContext

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
        "; ".join(missing) or ", ".join(f"{name} {WANTED[name].says()}" for name in sorted(WANTED)),
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
    rules = [pattern for pattern, recipients in creation_rules(root) if recipient not in recipients]
    files = [_shown(entry.file, root) for entry in encrypted if recipient not in entry.recipients]
    if secrets.path.exists() and recipient not in sops.recipients(secrets.path):
        files.append(_shown(secrets.path, root))
    wrong = [*(f"rule {pattern} of .sops.yaml" for pattern in rules), *dict.fromkeys(files)]
    return Check(
        "the age key is a recipient in .sops.yaml and in every encrypted file",
        not wrong,
        f"not in {', '.join(wrong)}" if wrong else f"{len(encrypted)} files",
        f"put {recipient} into .sops.yaml, then `sops updatekeys` on every file named; or name the right key in the "
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


GROUPS = (
    CheckGroup("the required programs can be found", _programs),
    CheckGroup("the DHCP reservations are written", _dhcp),
    CheckGroup("the age key is present and decrypts the secrets of the tree", _age_key),
    CheckGroup("Git tracks no plaintext secret", _tracked_secrets),
)
