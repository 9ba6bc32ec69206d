"""Stage 6, sops-age-key: the key with which Argo CD decrypts the secrets in Git, as Secret argocd/sops-age-key.

In the cluster, a wrong key shows only as manifests that cannot be generated (F51). So before anything is written the
key is compared with `.sops.yaml` and every encrypted file, and one file is decrypted. Keys are named by their public
halves; the Secret's value is never shown.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluobook.clients import age, sops
from fluobook.clients.kube import Kube
from fluobook.context import RunContext
from fluobook.errors import OutsideError, Refused, Rejected
from fluobook.gitops.secrets import encrypted_files
from fluobook.params import Platform
from fluobook.stages.core.check import Check
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.stage import Stage

NAME = "sops-age-key"
NAMESPACE, SECRET, KEY = "argocd", "sops-age-key", "keys.txt"


@dataclass(frozen=True)
class Observation:
    """What exists; keys are named by their public halves.

    Args:
        recipients: of the operator's age key file.
        problems: why the key does not decrypt the tree.
        files: how many encrypted files it was compared with.
        missing: the earlier stage that has to run first.
        secret: the keys in the cluster's Secret; None where there is no Secret.
    """

    recipients: tuple[str, ...]
    problems: tuple[str, ...]
    files: int
    missing: Missing | None = None
    secret: tuple[str, ...] | None = None


def observe(context: RunContext) -> Observation:
    """Compare the key with the tree, then read the Secret.

    Raises:
        Refused: the key is the lab's, and the target is live.
    """
    text = context.secrets.age_key()
    recipients = tuple(identity.recipient for identity in age.read(text))
    files, problems = _compare_with_tree(context.root, text, frozenset(recipients))
    missing, secret = (None, None) if problems else _read_secret(context)
    return Observation(recipients, problems, files, missing, secret)


def _compare_with_tree(root: Path, text: str, recipients: frozenset[str]) -> tuple[int, tuple[str, ...]]:
    files = [entry for entry in encrypted_files(root) if not entry.file.is_relative_to(root / "talos")]
    problems = []
    for entry in files:
        name = entry.file.relative_to(root).as_posix()
        if not recipients & (entry.wanted or frozenset()):
            problems.append(f".sops.yaml names {_listed(entry.wanted)} for {name}")
        if not recipients & entry.recipients:
            problems.append(f"{name} is encrypted for {_listed(entry.recipients)}")
    if files and not problems:
        try:
            sops.decrypt(files[0].file, text)
        except OutsideError as error:
            problems.append(error.message)
    return len(files), tuple(problems)


def _listed(recipients: frozenset[str] | None) -> str:
    return ", ".join(sorted(recipients or ())) or "nobody"


def _read_secret(context: RunContext) -> tuple[Missing | None, tuple[str, ...] | None]:
    kube = api(context)
    if isinstance(kube, Missing):
        return kube, None
    if kube.find("v1", "Namespace", NAMESPACE) is None:
        return Missing("privileged-namespaces", f"there is no namespace {NAMESPACE} yet"), None
    return None, keys_in(kube)


def keys_in(kube: Kube) -> tuple[str, ...] | None:
    """The public halves of the keys in the cluster's Secret; None where there is no Secret."""
    secret = kube.find("v1", "Secret", SECRET, NAMESPACE)
    if secret is None:
        return None
    try:
        text = base64.b64decode((secret.get("data") or {}).get(KEY, "")).decode()
        return tuple(identity.recipient for identity in age.read(text))
    except (Rejected, UnicodeDecodeError, binascii.Error):
        return ()


def plan(platform: Platform, observation: Observation) -> Plan:
    """One action, unless the Secret holds the operator's key already.

    Raises:
        Refused: the key does not decrypt the tree.
    """
    _require_no_problems(observation)
    if observation.secret is not None and set(observation.secret) == set(observation.recipients):
        return Plan(NAME, (), 1, platform.digest_data())
    public = ", ".join(observation.recipients)
    action = Action(
        "secret",
        "change" if observation.secret is not None else "create",
        f"secret {NAMESPACE}/{SECRET}",
        f"the key of {public}",
        _reason(observation),
        system="kubernetes",
        data={"namespace": NAMESPACE, "name": SECRET, "key": KEY, "recipients": list(observation.recipients)},
    )
    waits, notes = (observation.missing.stage, (observation.missing.reason,)) if observation.missing else ("", ())
    return Plan(NAME, (action,), 0, platform.digest_data(), waits, notes)


def _require_no_problems(observation: Observation) -> None:
    if observation.problems:
        public = ", ".join(observation.recipients)
        raise Refused(
            f"the age key ({public}) does not match: {'; '.join(observation.problems)}",
            cause="Argo CD could not decrypt the platform's secrets with it (F51)",
            remedy=f"name the right key in the params (secrets.age_key); or add {public} to .sops.yaml and, with a "
            "key that decrypts the files, run `sops updatekeys FILE` for each of them",
        )


def _reason(observation: Observation) -> str:
    if observation.secret is None:
        return "does not exist"
    return f"holds the key of {', '.join(observation.secret)}" if observation.secret else "holds no readable age key"


def perform(context: RunContext, _action: Action, _report: Reporter) -> Mapping[str, Any]:
    """Write the Secret."""
    return write(context)


def write(context: RunContext) -> Mapping[str, Any]:
    """Write the Secret with all keys of the operator's file. The evidence is its resource version and nothing else."""
    identities = age.read(context.secrets.age_key())
    text = "".join(f"# public key: {identity.recipient}\n{identity.secret}\n" for identity in identities)
    context.redactor.add(text)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "type": "Opaque",
        "data": {KEY: base64.b64encode(text.encode()).decode()},
    }
    applied = context.kube().apply(secret, force=True)
    return {"resourceVersion": applied["metadata"]["resourceVersion"]}


def verify(_context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 6."""
    public = ", ".join(observation.recipients)
    held = ", ".join(observation.secret or ()) or ("no readable key" if observation.secret == () else "no such Secret")
    again = f"run stage {NAME} again"
    return (
        Check(
            f"Secret {NAMESPACE}/{SECRET} holds the key",
            set(observation.secret or ()) == set(observation.recipients),
            held,
            again,
        ),
        Check(
            "the key is a recipient of every encrypted file of the tree",
            not observation.problems,
            "; ".join(observation.problems) or f"{observation.files} of {observation.files} are for {public}",
            f"add {public} to .sops.yaml, then for each of these files: sops updatekeys FILE",
        ),
    )


STAGE = Stage(6, NAME, "Install the SOPS age key for Argo CD", observe, plan, perform, verify, uses=("kubernetes",))
