"""Stage 6, sops-age-key: the key with which Argo CD decrypts what is in Git, as Secret argocd/sops-age-key.

A key that does not fit shows in the cluster only as manifests that cannot be made (F51), so before anything is written
it is held against `.sops.yaml` and every encrypted file, and one file is decrypted. Keys are named by their public
halves; the Secret's value is never shown.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluobook.clients import age, sops
from fluobook.errors import OutsideError, Refused, Rejected
from fluobook.gitops.secrets import encrypted_files
from fluobook.stages.core.check import Check
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.clients.kube import Kube
    from fluobook.context import RunContext
    from fluobook.params import Platform
    from fluobook.stages.core.executor import Reporter

NAME = "sops-age-key"
NAMESPACE, SECRET, KEY = "argocd", "sops-age-key", "keys.txt"


@dataclass(frozen=True)
class Observation:
    """What there is; keys are named by their public halves.

    Args:
        recipients: of the operator's age key file.
        problems: what the key does not fit.
        files: how many encrypted files it was held against.
        missing: the earlier stage without which nothing can be looked at.
        secret: the keys in the cluster's Secret; None where there is no Secret.
    """

    recipients: tuple[str, ...]
    problems: tuple[str, ...]
    files: int
    missing: Missing | None = None
    secret: tuple[str, ...] | None = None


def observe(context: RunContext) -> Observation:
    """Hold the key against the tree, then look at the Secret.

    Raises:
        Refused: the key is the lab's, and the target is live.
    """
    text = context.secrets.age_key()
    recipients = tuple(identity.recipient for identity in age.read(text))
    files, problems = _held_against_the_tree(context, text, frozenset(recipients))
    missing, secret = (None, None) if problems else _look(context)
    return Observation(recipients, problems, files, missing, secret)


def _held_against_the_tree(context: RunContext, text: str, recipients: frozenset[str]) -> tuple[int, tuple[str, ...]]:
    top = context.root / "cluster-gitops"
    files = [one for one in encrypted_files(context.root) if one.file.is_relative_to(top)]
    problems = []
    for one in files:
        name = one.file.relative_to(context.root).as_posix()
        if not recipients & (one.wanted or frozenset()):
            problems.append(f".sops.yaml names {_listed(one.wanted)} for {name}")
        if not recipients & one.recipients:
            problems.append(f"{name} is encrypted for {_listed(one.recipients)}")
    if files and not problems:
        try:
            sops.decrypt(files[0].file, text)
        except OutsideError as error:
            problems.append(error.message)
    return len(files), tuple(problems)


def _listed(recipients: frozenset[str] | None) -> str:
    return ", ".join(sorted(recipients or ())) or "nobody"


def _look(context: RunContext) -> tuple[Missing | None, tuple[str, ...] | None]:
    kube = api(context)
    if isinstance(kube, Missing):
        return kube, None
    if kube.find("v1", "Namespace", NAMESPACE) is None:
        return Missing("privileged-namespaces", f"there is no namespace {NAMESPACE} yet"), None
    return None, _keys_in(kube)


def _keys_in(kube: Kube) -> tuple[str, ...] | None:
    found = kube.find("v1", "Secret", SECRET, NAMESPACE)
    if found is None:
        return None
    try:
        text = base64.b64decode((found.get("data") or {}).get(KEY, "")).decode()
        return tuple(identity.recipient for identity in age.read(text))
    except (Rejected, UnicodeDecodeError, binascii.Error):
        return ()


def plan(platform: Platform, seen: Observation) -> Plan:
    """One action, unless the Secret holds the operator's key already.

    Raises:
        Refused: the key does not open what is in the tree.
    """
    _opens_the_tree(seen)
    if seen.secret is not None and set(seen.secret) == set(seen.recipients):
        return Plan(NAME, (), 1, platform.digest_data())
    public = ", ".join(seen.recipients)
    action = Action(
        "secret",
        "change" if seen.secret is not None else "create",
        f"secret {NAMESPACE}/{SECRET}",
        f"the key of {public}",
        _reason(seen),
        system="kubernetes",
        data={"namespace": NAMESPACE, "name": SECRET, "key": KEY, "recipients": list(seen.recipients)},
    )
    waits, notes = (seen.missing.stage, (seen.missing.reason,)) if seen.missing else ("", ())
    return Plan(NAME, (action,), 0, platform.digest_data(), waits, notes)


def _opens_the_tree(seen: Observation) -> None:
    if seen.problems:
        raise Refused(
            f"the age key ({', '.join(seen.recipients)}) does not fit: {'; '.join(seen.problems)}",
            cause="Argo CD could not decrypt the platform's secrets with it (F51)",
            remedy="name the right key in the params (secrets.age_key), or `sops updatekeys` the files with one that "
            "opens them",
        )


def _reason(seen: Observation) -> str:
    if seen.secret is None:
        return "not there"
    return f"holds the key of {', '.join(seen.secret)}" if seen.secret else "holds no age key that can be read"


def perform(context: RunContext, action: Action, _report: Reporter) -> Mapping[str, Any]:
    """Write the Secret. It answers with its resource version and nothing else."""
    identities = age.read(context.secrets.age_key())
    text = "".join(f"# public key: {one.recipient}\n{one.secret}\n" for one in identities)
    context.redactor.add(text)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": action.data["name"], "namespace": action.data["namespace"]},
        "type": "Opaque",
        "data": {action.data["key"]: base64.b64encode(text.encode()).decode()},
    }
    applied = context.kube().apply(secret, force=True)
    return {"resourceVersion": applied["metadata"]["resourceVersion"]}


def verify(_context: RunContext, seen: Observation) -> Sequence[Check]:
    """The checks of stage 6."""
    public = ", ".join(seen.recipients)
    here = ", ".join(seen.secret or ()) or ("nothing that can be read" if seen.secret == () else "no such Secret")
    again = f"run stage {NAME} again"
    return (
        Check(
            f"Secret {NAMESPACE}/{SECRET} holds the key", set(seen.secret or ()) == set(seen.recipients), here, again
        ),
        Check(
            "the key opens every encrypted file of the tree",
            not seen.problems,
            "; ".join(seen.problems) or f"{seen.files} of {seen.files} are for {public}",
            "sops updatekeys",
        ),
    )


STAGE = Stage(
    6, NAME, "Give Argo CD the key to the secrets in Git", observe, plan, perform, verify, uses=("kubernetes",)
)
