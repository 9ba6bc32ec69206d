"""What expires, what is renewed and rotated, and the checks afterwards."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fluobook.clients.talos import Mode, probe
from fluobook.cluster_secrets import AccessFile
from fluobook.context import RunContext
from fluobook.errors import PHASE
from fluobook.params import Platform
from fluobook.stages.bootstrap_kubernetes.plan import file_actions, files_check
from fluobook.stages.bootstrap_kubernetes.work import write_file
from fluobook.stages.certificates import authorities, keys
from fluobook.stages.certificates.authorities import Authority
from fluobook.stages.certificates.keys import AgeKey, Password, RetiredToken
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.executor import Reporter, in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.day_two import expiry
from fluobook.stages.day_two.expiry import AUTHORITIES, Expiring

NAME = "certificates"
INTERRUPTED = {
    "talos": "nothing is interrupted; whoever else has a talosconfig needs the new one, and pods that use the Talos "
    "API must be restarted",
    "kubernetes": "API servers and kubelets restart, node by node, and every workload that uses the API, one after the "
    "other; whoever else has a kubeconfig needs the new one",
}
"""What a rotation interrupts."""


@dataclass(frozen=True)
class Observation:
    """What was read.

    Args:
        now: in UTC.
        missing: what an earlier stage has not done.
        files: the kubeconfig and the talosconfig.
        expiring: what expires.
        authorities: what can be rotated, and how far it has come.
        bundle: the names of the files that a rotation changes.
        password: that of admin in Argo CD.
        key: the age key.
        tokens: the API tokens of Proxmox VE that others have replaced.
    """

    now: dt.datetime
    missing: Missing | None = None
    files: Mapping[str, AccessFile] = field(default_factory=dict)
    expiring: Sequence[Expiring] = ()
    authorities: Sequence[Authority] = ()
    bundle: tuple[str, ...] = ()
    password: Password = field(default_factory=Password)
    key: AgeKey = field(default_factory=AgeKey)
    tokens: Sequence[RetiredToken] = ()


def observe(context: RunContext) -> Observation:
    """Read what expires, and what can be rotated.

    Raises:
        Refused: a time in `rotate` of the params has not come yet.
    """
    now, kube = dt.datetime.now(dt.UTC), api(context)
    if isinstance(kube, Missing):
        return Observation(now, kube)
    secrets = context.secrets
    files = secrets.access_files(context.platform, context.home)
    names = secrets.path.name, secrets.rotation_path.name
    password = keys.read_password(kube, authorities.moment(context.platform, "argocd_password", now))
    return Observation(
        now,
        None,
        files,
        expiry.read(context),
        authorities.observe(context, now),
        names,
        password,
        keys.read_age_key(context, kube),
        keys.read_tokens(context),
    )


def plan(platform: Platform, observation: Observation) -> Plan:
    """What is renewed and rotated, and notes on what has to be renewed elsewhere.

    Raises:
        Refused: an authority cannot be rotated now; nothing was changed.
    """
    if observation.missing:
        return Plan(NAME, (), 0, platform.digest_data(), observation.missing.stage, (observation.missing.reason,))
    actions, now = list(file_actions(observation.files)), observation.now
    notes = [
        f"{each.name}: {each.left(now)}; renewed by {each.renewal}"
        for each in observation.expiring
        if each.kind != "client" and (each.is_due(now) or each.problem)
    ]
    kept = len(observation.expiring) - len(notes) - len(actions)
    due = sorted((each for each in observation.authorities if each.is_due), key=lambda each: not each.phase)
    for number, authority in enumerate(due):
        # While one is rotated, what nodes say of the next one is not known yet.
        now_known = replace(authority, nodes=dict.fromkeys(authority.nodes, authorities.DONE)) if number else authority
        actions += authorities.actions(platform, now_known, actions)
        notes.append(f"authority of {AUTHORITIES[authority.name]}: {INTERRUPTED[authority.name]}")
        notes.append(f"keep and commit {' and '.join(observation.bundle)} until the rotation is done")
    actions += keys.actions(observation.password, observation.key, actions)
    actions += keys.revocations(observation.tokens, actions)
    notes += keys.notes(observation.password, observation.key)
    hidden = [token for token in observation.tokens if token.exists is None]
    notes += [
        f"the token of {each.endpoint} may not revoke others; as root on a host: {each.by_hand}" for each in hidden
    ]
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), notes=tuple(dict.fromkeys(notes)))


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """Check that everything lasts long enough, and that nodes know no other authority than the bundle's."""
    again = f"fluobook run {PHASE} {NAME}"
    due = [AUTHORITIES[each.name] for each in observation.authorities if each.is_due]
    title = "no rotation of an authority is due or unfinished"
    checks = [files_check(observation.files), *expiry.checks(observation.expiring, observation.now)]
    checks.append(Check(title, not due, count(len(observation.authorities), due), again))
    password, key = observation.password, observation.key
    if password.wanted:
        result = f"{password.changed:%Y-%m-%d}" if password.changed else "it has none"
        checks.append(
            Check("the password of admin in Argo CD is as young as asked", not password.is_due, result, again)
        )
    if key.wanted:
        left = [*key.files, *([keys.RULES] if key.rules else [])]
        checks.append(Check("no other key of yours decrypts the files", not left, ", ".join(left) or key.wanted, again))
        installed = key.installed is None or set(key.installed) == set(key.own)
        checks.append(Check("Argo CD has the keys", installed, ", ".join(key.installed or ()) or "no Argo CD", again))
    if observation.tokens:
        left = [token.id for token in observation.tokens if token.exists is not False]
        remedy = "; ".join(token.by_hand for token in observation.tokens if token.exists is not False)
        seen = any(token.exists for token in observation.tokens)
        result = count(len(observation.tokens), left)
        checks.append(Check("retired tokens are revoked", not left, result, remedy, advisory=not seen))
    if observation.authorities and not due:
        nodes = context.platform.nodes
        ca, identity = context.secrets.bundle().talos.crt, context.secrets.talos_identity("os:reader")
        modes = in_parallel(lambda node: probe(context.talos.address(node), ca=ca, identity=identity).mode, nodes)
        other = [node.name for node, mode in zip(nodes, modes, strict=True) if mode is not Mode.CONFIGURED]
        checks.append(
            Check("every node identifies itself by the bundle's authority", not other, count(len(nodes), other), again)
        )
    return checks


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    if "authority" in action.data:
        return authorities.perform(context, action, report)
    if "key" in action.data:
        return keys.perform(context, action, report)
    write_file(context, action.data["file"])
    return {"file": action.data["file"]}
