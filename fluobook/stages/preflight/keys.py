"""The age key: that it is there, opens what it has to open, and that nothing secret is in Git beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fluobook.clients import git, sops
from fluobook.cluster_secrets import OWN_KEY
from fluobook.errors import NotFound
from fluobook.gitops.secrets import creation_rules, encrypted_files, lab_recipients
from fluobook.stages.core.check import Check, CheckGroup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path, PurePath

    from fluobook.context import RunContext

_PLAIN = re.compile(
    r"(^|/)(kubeconfig[^/]*|talosconfig[^/]*|keys\.txt|[^/]*\.age|[^/]*\.agekey|age\.key"
    r"|[^/]*\.tfstate[^/]*|[^/]*\.tfvars|secrets\.yaml|\.env)$"
)
_HARMLESS = re.compile(r"(^|/)params/lab/[^/]*\.age$|\.py$|\.md$|\.ipynb$|\.example$|\.sample$")


def _key(context: RunContext) -> Iterator[Check]:
    if context.policy.refuses_lab_key:
        yield _own(context)
    recipient = context.secrets.recipient()
    yield Check("the age key is there", passed=True, result=recipient)
    yield _fits(context, recipient)
    yield _opens(context)


def _own(context: RunContext) -> Check:
    """The secrets refuses the lab's key for a live platform; here it is what the tree is encrypted for that counts."""
    named = {one for _, recipients in creation_rules(context.root) for one in recipients}
    public = named & lab_recipients(context.root)
    return Check(
        "what is in the tree is not for the lab's key, which is public",
        not public,
        f".sops.yaml names {', '.join(sorted(public))}, the lab's" if public else f"{len(named)} recipients",
        OWN_KEY,
    )


def _fits(context: RunContext, recipient: str) -> Check:
    rules = [pattern for pattern, recipients in creation_rules(context.root) if recipient not in recipients]
    files = [_shown(one.file, context.root) for one in encrypted_files(context.root) if recipient not in one.recipients]
    bundle = context.secrets.path
    if bundle.exists() and recipient not in sops.recipients(bundle):
        files.append(_shown(bundle, context.root))
    wrong = [*(f"rule {pattern} of .sops.yaml" for pattern in rules), *dict.fromkeys(files)]
    return Check(
        "it belongs to .sops.yaml and to every encrypted file",
        not wrong,
        f"not to {', '.join(wrong)}" if wrong else f"{len(encrypted_files(context.root))} files",
        f"put {recipient} into .sops.yaml, then `sops updatekeys` on every file named; or name the right key in the "
        "params (secrets.age_key)",
    )


def _opens(context: RunContext) -> Check:
    """One file for all: a damaged key, or a file changed by hand, shows before a cluster waits for it."""
    files = [one.file for one in encrypted_files(context.root) if sops.is_encrypted(one.file)]
    if not files:
        return Check("it decrypts what is in the tree", passed=True, result="nothing is encrypted yet")
    sops.decrypt(files[0], context.secrets.age_key())
    return Check("it decrypts what is in the tree", passed=True, result=_shown(files[0], context.root))


def _tracked(context: RunContext) -> Iterator[Check]:
    claim = "Git tracks no secret in clear"
    try:
        git.root(context.root)
    except NotFound:
        yield Check(claim, passed=True, result="this is not a Git repository")
        return
    found = plaintext_secrets(path.relative_to(context.root) for path in git.tracked(context.root))
    yield Check(
        claim,
        not found,
        ", ".join(found) if found else "no kubeconfig, talosconfig, age key or state file",
        f"git rm --cached {' '.join(found)}, then replace what is in them: Git forgets nothing",
    )


def plaintext_secrets(paths: Iterable[PurePath]) -> list[str]:
    """Of files that Git tracks, those whose names say that they hold credentials in clear; the lab's key is public."""
    names = (path.as_posix() for path in paths)
    return sorted(name for name in names if _PLAIN.search(name) and not _HARMLESS.search(name))


def _shown(file: Path, root: Path) -> str:
    """A path as a person says it: inside the repository relative, else by name alone, since the rest differs."""
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


GROUPS = (
    CheckGroup("the age key is there, and opens the tree's secrets", _key),
    CheckGroup("Git tracks no secret in clear", _tracked),
)
