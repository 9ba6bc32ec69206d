"""The rotation of keys: the password of admin in Argo CD, the age key, and API tokens of Proxmox VE.

Argo CD generates the password, so it is nowhere but in the cluster. The private half of the new age key is in the
operator's key file beside the old one; which of them is the new one is said by its public half. The params name the
new API token by its id and where its secret is; the old one, by its id, is revoked once the new one has all privileges.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluobook.clients import age, sops
from fluobook.clients.kube import Kube
from fluobook.clients.proxmox.privileges import missing
from fluobook.context import RunContext
from fluobook.errors import PHASE, AccessDenied, Refused
from fluobook.files import read_text, write_text
from fluobook.gitops import secrets as tree
from fluobook.gitops.root import NAMESPACE
from fluobook.params.versions import major_of
from fluobook.stages import sops_age_key
from fluobook.stages.certificates.authorities import RESTARTED, restart
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action
from fluobook.stages.preflight.proxmox import needs_of
from fluobook.stages.secrets import files as secrets

PASSWORD, CHANGED = "admin.password", "admin.passwordMtime"
OWN, INITIAL, SERVER, REPO_SERVER = (
    "argocd-secret",
    "argocd-initial-admin-secret",
    "argocd-server",
    "argocd-repo-server",
)
RULES = ".sops.yaml"


@dataclass(frozen=True)
class Password:
    """The password of admin in Argo CD.

    Args:
        installed: whether Argo CD has started, and admin has ever had a password.
        changed: when it was set; None if it has been taken away, and Argo CD has not generated another one yet.
        wanted: it is rotated if it was set before this; None if nobody asked.
    """

    installed: bool = False
    changed: dt.datetime | None = None
    wanted: dt.datetime | None = None

    @property
    def is_due(self) -> bool:
        """Whether it is to be rotated."""
        return self.installed and self.wanted is not None and (self.changed is None or self.changed < self.wanted)


@dataclass(frozen=True)
class AgeKey:
    """The age key that replaces the operator's others.

    Args:
        wanted: its public half; "" if nobody asked.
        own: the public halves of all keys in the operator's key file.
        rules: whether .sops.yaml names another of them.
        files: the files that are encrypted for another of them, and their recipients to be.
        installed: the keys that Argo CD has; None without Argo CD.
        lab: the public halves that a live platform refuses; none where they are allowed.
    """

    wanted: str = ""
    own: tuple[str, ...] = ()
    rules: bool = False
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    installed: tuple[str, ...] | None = None
    lab: AbstractSet[str] = frozenset()

    @property
    def others(self) -> frozenset[str]:
        """The keys that go."""
        return frozenset(self.own) - {self.wanted}


@dataclass(frozen=True)
class RetiredToken:
    """An API token that another one has replaced.

    Args:
        endpoint: the endpoint of Proxmox VE, by its name.
        id: user@realm!name.
        exists: None if the present token may not know.
        lacking: what the present token lacks of the privileges that the runbooks need.
    """

    endpoint: str
    id: str
    exists: bool | None = None
    lacking: tuple[str, ...] = ()

    @property
    def by_hand(self) -> str:
        """The command that revokes it, to be typed as root."""
        user, _, name = self.id.rpartition("!")
        return f"pveum user token remove '{user}' '{name}'"


def read_tokens(context: RunContext) -> tuple[RetiredToken, ...]:
    """Whether the retired tokens still exist, and whether those in their place can do their work.

    Raises:
        Refused: the retired token is the present one.
    """
    retired_tokens = []
    for endpoint in context.platform.proxmox:
        if not (retired := endpoint.retired_token_id):
            continue
        if retired == endpoint.token_id:
            raise Refused(
                f"{retired} is both the token of {endpoint.name} and its retired one",
                remedy="create another token, and name it in token_id and token_secret",
            )
        client = context.proxmox(endpoint.name)
        user, _, name = retired.rpartition("!")
        needs = needs_of(context.platform, endpoint, int(major_of(client.version()["version"])))
        lacking = tuple(f"{n.privilege} on {n.path}" for n in missing(needs, client.permissions()))
        try:
            exists: bool | None = name in {str(token["tokenid"]) for token in client.tokens(user)}
        except AccessDenied:
            exists = None
        retired_tokens.append(RetiredToken(endpoint.name, retired, exists, lacking))
    return tuple(retired_tokens)


def revocations(tokens: Sequence[RetiredToken], first: Sequence[Action]) -> Iterator[Action]:
    """What revokes the retired tokens that are seen.

    Raises:
        Refused: the token in the place of one lacks privileges.
    """
    needs = tuple(action.id for action in first)
    for token in tokens:
        if token.exists and token.lacking:
            raise Refused(
                f"{token.id} is not revoked: the token in its place lacks {', '.join(token.lacking)}",
                remedy=f"fluobook run {PHASE} --only preflight shows the commands that grant it",
            )
        if token.exists:
            data = {"key": "token", "endpoint": token.endpoint, "token": token.id}
            reason = "another one has replaced it, with all privileges"
            thing = f"API token {token.id}"
            yield Action(f"token {token.id}", "revoke", thing, f"of {token.endpoint}", reason, needs, "node", data)


def read_password(kube: Kube, wanted: dt.datetime | None) -> Password:
    """When the password was set."""
    secret = kube.find("v1", "Secret", OWN, NAMESPACE)
    data = tree.mapping((secret or {}).get("data"))
    if "server.secretkey" not in data or kube.find("apps/v1", "Deployment", SERVER, NAMESPACE) is None:
        return Password(wanted=wanted)
    text = (tree.decoded(data.get(CHANGED)) or b"").decode(errors="replace")
    try:
        changed = dt.datetime.fromisoformat(text) if PASSWORD in data else None
    except ValueError:
        changed = dt.datetime.min.replace(tzinfo=dt.UTC)
    return Password(installed=True, changed=changed, wanted=wanted)


def read_age_key(context: RunContext, kube: Kube) -> AgeKey:
    """What is still encrypted for another key than the wanted one, and which keys Argo CD has."""
    wanted, root = context.platform.rotate.age_key or "", context.root
    if not wanted:
        return AgeKey()
    own = tuple(identity.recipient for identity in age.read(context.secrets.age_key()))
    others = frozenset(own) - {wanted}
    rules = any(recipients & others for _, recipients in tree.creation_rules(root))
    files = {
        entry.file.relative_to(root).as_posix(): sorted((entry.wanted or entry.recipients) - others | {wanted})
        for entry in tree.encrypted_files(root)
        if entry.recipients & others
    }
    for path in context.secrets.files():
        recipients = frozenset(sops.recipients(path))
        if not path.is_relative_to(root / "talos") and recipients & others:
            files[path.name] = sorted(recipients - others | {wanted})
    lab = tree.lab_recipients(root) if context.policy.refuses_lab_key else frozenset()
    return AgeKey(wanted, own, rules, files, sops_age_key.keys_in(kube), lab)


def actions(password: Password, key: AgeKey, first: Sequence[Action]) -> Iterator[Action]:
    """What is left of both rotations; of the age key first what decrypts, then what is encrypted.

    Raises:
        Refused: the private half of the wanted age key is not there, or it is the lab's.
    """
    last = tuple(action.id for action in first)
    if password.is_due and password.wanted:
        reason = f"it was set before {password.wanted:%Y-%m-%d %H:%M:%S} UTC" if password.changed else "it has none"
        data = {"key": "argocd_password", "before": password.wanted.isoformat()}
        title, detail = "password of admin in Argo CD", "Argo CD generates it"
        yield Action("argocd password", "renew", title, detail, reason, last, "node", data)
        last = ("argocd password",)
    if not key.wanted:
        return
    if key.wanted not in key.own or key.wanted in key.lab:
        is_lab = key.wanted in key.lab
        whose = "the lab's" if is_lab else "no key of your age key file"
        raise Refused(
            f"rotate.age_key, {key.wanted}, is {whose}",
            cause="everybody has the lab's key" if is_lab else "nobody here could decrypt what is encrypted for it",
            remedy="append a new key to the file of secrets.age_key (`age-keygen >> FILE`), and set rotate.age_key "
            "to the public key that it prints",
        )
    data = {"key": "age_key", "wanted": key.wanted}
    if key.installed is not None and set(key.installed) != set(key.own):
        detail = f"the keys of {', '.join(key.own)}"
        reason = f"it has those of {', '.join(key.installed) or 'nobody'}"
        title = f"secret {NAMESPACE}/{sops_age_key.SECRET}"
        yield Action("age key: secret", "change", title, detail, reason, last, "node", {**data, "own": list(key.own)})
        last = ("age key: secret",)
    if key.rules:
        detail, reason = f"{key.wanted} in place of {', '.join(sorted(key.others))}", "it names a key that goes"
        yield Action("age key: rules", "change", RULES, detail, reason, last, "node", {**data, "file": RULES})
        last = ("age key: rules",)
    for file, recipients in key.files.items():
        reason = "it is encrypted for a key that goes"
        more = {**data, "file": file, "recipients": list(recipients)}
        yield Action(f"age key: {file}", "re-key", file, f"for {', '.join(recipients)}", reason, last, "node", more)
        last = (f"age key: {file}",)


def notes(password: Password, key: AgeKey) -> Iterator[str]:
    """What a person should know and do."""
    if password.is_due:
        yield f"argocd-server restarts, sessions of admin end; the new password is in Secret {NAMESPACE}/{INITIAL}"
    if key.wanted and (key.rules or key.files):
        yield "argocd-repo-server restarts; commit and push what is encrypted anew"
        yield "values that the old key could read in Git's history stay readable by it: renew them too"
    if key.wanted and key.others:
        yield (
            f"when Argo CD has synced what was pushed, remove the key of {', '.join(sorted(key.others))} from the age "
            "key file, and run this again; keep it elsewhere as long as you keep snapshots of etcd from before"
        )


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action; one that was done already changes nothing."""
    if action.data["key"] == "token":
        user, _, name = action.data["token"].rpartition("!")
        client = context.proxmox(action.data["endpoint"])
        if name in {token["tokenid"] for token in client.tokens(user)}:
            client.revoke_token(user, name)
        return {"token": action.data["token"]}
    kube = context.kube()
    if action.data["key"] == "argocd_password":
        return _renew_password(context, kube, dt.datetime.fromisoformat(action.data["before"]), report)
    if action.id == "age key: secret":
        evidence = sops_age_key.write(context)
        if kube.find("apps/v1", "Deployment", REPO_SERVER, NAMESPACE):
            report("argocd-repo-server restarts")
            _restart(context, kube, REPO_SERVER)
        return evidence
    others = frozenset(identity.recipient for identity in age.read(context.secrets.age_key())) - {action.data["wanted"]}
    if action.data["file"] == RULES:
        path = context.root / RULES
        write_text(path, replaced(read_text(path), others, action.data["wanted"]))
        return None
    file, recipients = context.root / action.data["file"], action.data["recipients"]
    if file.exists():
        secrets.encrypt(context, file, secrets.plaintext(context, file), recipients)
    else:
        context.secrets.encrypt_for(action.data["file"], recipients)
    return {"recipients": recipients}


def _renew_password(context: RunContext, kube: Kube, before: dt.datetime, report: Reporter) -> Mapping[str, Any]:
    """Take the password away and let argocd-server start again, which generates another one if there is none."""

    def when_changed() -> str | None:
        now = read_password(kube, before)
        return None if now.is_due or now.changed is None else now.changed.isoformat()

    if not (changed := when_changed()):
        kube.patch("v1", "Secret", OWN, NAMESPACE, body={"data": {PASSWORD: None, CHANGED: None}})
        report("argocd-server restarts")
        _restart(context, kube, SERVER)
        changed = context.wait_until("argocd", "Argo CD to generate another password", when_changed)
    return {"changed": changed}


def _restart(context: RunContext, kube: Kube, name: str) -> None:
    deployment = kube.get("apps/v1", "Deployment", name, NAMESPACE)
    restart(context, deployment, {RESTARTED: dt.datetime.now(dt.UTC).isoformat(timespec="seconds")})


def replaced(text: str, others: AbstractSet[str], wanted: str) -> str:
    """The rules of .sops.yaml with one recipient in place of others; comments stay.

    Args:
        text: the file.
        others: the recipients that go.
        wanted: the one that comes.
    """
    text = re.sub("|".join(map(re.escape, sorted(others))), wanted, text)
    document, repeated = secrets.document_of(text, Path(RULES)), False
    for rule in document.get("creation_rules") or ():
        for group in (rule, *(rule.get("key_groups") or ())):
            listed = group.get("age") or ""
            names = re.split(r"[\s,]+", listed.strip()) if isinstance(listed, str) else listed
            if names.count(wanted) > 1:
                kept, repeated = list(dict.fromkeys(names)), True
                group["age"] = ",".join(kept) if isinstance(listed, str) else kept
    return secrets.dump(document) if repeated else text
