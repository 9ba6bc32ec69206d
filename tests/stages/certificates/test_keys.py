"""The password of Argo CD and the age key are rotated, and nothing is unreadable in between."""

from __future__ import annotations

import base64
import datetime as dt
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import params
from fluobook.clients import age, sops
from fluobook.context import POLICIES, RunContext
from fluobook.errors import FluobookError, Refused
from fluobook.gitops.secrets import encrypted_files
from fluobook.journal.journal import Journal
from fluobook.notebook import stage_run
from fluobook.redact import Redactor
from fluobook.stages import catalogue, certificates
from fluobook.stages.certificates import keys
from fluobook.stages.certificates.keys import AgeKey, Password, RetiredToken, replaced
from fluobook.stages.core.plan import Approval, Gate
from tests.stages.conftest import interrupting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = dt.datetime(2027, 3, 1, tzinfo=dt.UTC)
OLD = NOW - dt.timedelta(days=1)
BEFORE = tuple(stage.name for stage in catalogue.STAGES if 0 < stage.number <= 7)


@pytest.mark.parametrize(
    ("password", "due"),
    [
        (Password(), False),
        (Password(wanted=NOW), False),
        (Password(installed=True, changed=OLD), False),
        (Password(installed=True, changed=OLD, wanted=NOW), True),
        (Password(installed=True, changed=NOW, wanted=NOW), False),
        (Password(installed=True, changed=None, wanted=NOW), True),
        (Password(installed=True, changed=None), False),
    ],
    ids=["no Argo CD", "none, asked", "nobody asked", "older", "young enough", "taken away", "disabled"],
)
def test_the_password_is_due_if_it_is_older_than_asked_or_was_taken_away(password: Password, due: bool) -> None:
    assert password.is_due is due


def steps(key: AgeKey) -> list[str]:
    return [action.id for action in keys.actions(Password(), key, ())]


def test_argo_cd_can_decrypt_with_the_new_key_before_anything_is_encrypted_for_it() -> None:
    key = AgeKey("age1new", ("age1old", "age1new"), rules=True, files={"a": ("age1new",)}, installed=("age1old",))
    assert steps(key) == ["age key: secret", "age key: rules", "age key: a"]
    assert steps(replace(key, installed=None)) == ["age key: rules", "age key: a"]
    assert steps(replace(key, installed=("age1new", "age1old"), rules=False, files={})) == []
    assert steps(replace(key, own=("age1new",), installed=("age1new", "age1old"), rules=False, files={})) == [
        "age key: secret"
    ]


def test_a_key_that_nobody_here_has_and_the_labs_key_are_refused() -> None:
    with pytest.raises(Refused, match="no key of your age key file"):
        steps(AgeKey("age1new", ("age1old",)))
    with pytest.raises(Refused, match="is the lab's"):
        steps(AgeKey("age1new", ("age1old", "age1new"), lab=frozenset({"age1new"})))


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("age: old", "age: new"),
        ("age: old,other", "age: new,other"),
        ("age: old,new", "age: new"),
        ("age: [old, new, other]", "age:\n      - new\n      - other"),
        ("key_groups: [{age: [old]}]", "key_groups: [{age: [new]}]"),
        ("age: other", "age: other"),
    ],
)
def test_a_recipient_replaces_another_in_each_form_of_a_rule_and_comments_stay(rule: str, wanted: str) -> None:
    text = "# whose\ncreation_rules:\n  # which\n  - path_regex: ^x$\n    {}\n"
    assert replaced(text.format(rule), {"old"}, "new") == text.format(wanted)


def test_a_token_is_revoked_only_if_its_successor_can_do_everything() -> None:
    token = RetiredToken("laptop", "a@pve!old", exists=True)
    assert [action.id for action in keys.revocations([token, replace(token, exists=False)], ())] == ["token a@pve!old"]
    assert list(keys.revocations([replace(token, exists=None)], ())) == []
    assert token.by_hand == "pveum user token remove 'a@pve' 'old'"
    with pytest.raises(Refused, match=r"lacks VM\.Audit on /vms"):
        list(keys.revocations([replace(token, lacking=("VM.Audit on /vms",))], ()))


@pytest.fixture(scope="module")
def lab(shared_labs: Callable[..., Any]) -> Any:
    lab = shared_labs()
    lab.bring_up(*BEFORE)
    return lab


def live(lab: Any, name: str) -> dict[str, str]:
    secret = lab.context().kube().get("v1", "Secret", name, "argocd")
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


@pytest.mark.lab
def test_argo_cd_generates_another_password_although_the_run_is_killed(
    lab: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = live(lab, keys.INITIAL)["password"], live(lab, keys.OWN)[keys.PASSWORD]
    wanted = dt.datetime.fromisoformat(live(lab, keys.OWN)[keys.CHANGED]) + dt.timedelta(seconds=1)
    lab.context().wait_until("gate", "a second to pass", lambda: dt.datetime.now(dt.UTC) > wanted or None)
    setting = f"platform.rotate.argocd_password='{wanted:%Y-%m-%dT%H:%M:%SZ}'"
    with monkeypatch.context() as patched:
        patched.setattr(keys, "_restart", interrupting(keys._restart, 1))
        stage = lab.stage("certificates", setting)
        with pytest.raises(FluobookError, match="laptop"):
            stage.apply(stage.plan())
    assert keys.PASSWORD not in live(lab, keys.OWN)
    stage = lab.stage("certificates", setting)
    stage.apply(stage.plan())
    assert stage.verify().ok
    after = live(lab, keys.INITIAL)["password"], live(lab, keys.OWN)[keys.PASSWORD]
    assert set(before).isdisjoint(after)
    shown = capsys.readouterr().out
    assert not [value for value in (*before, *after) if value in shown]
    lab.mark()
    again = lab.stage("certificates", setting)
    again.apply(again.plan())
    assert again.verify().ok
    assert lab.requests(mutating=True) == []


@pytest.mark.lab
def test_the_token_that_was_replaced_is_revoked_and_refused_from_then_on(lab: Any) -> None:
    context = lab.context()
    (endpoint,) = context.platform.proxmox
    user, _, name = endpoint.token_id.rpartition("!")
    old = f"{user}!old"
    tokens = lab.environment.proxmox[endpoint.name].inventory.tokens
    lab.background.call(tokens.__setitem__, old, replace(tokens[endpoint.token_id], id=old))
    setting = f"platform.proxmox.{endpoint.name}.retired_token_id={old}"
    with pytest.raises(Refused, match="is both the token"):
        lab.stage("certificates", f"platform.proxmox.{endpoint.name}.retired_token_id={user}!{name}").plan()
    interrupted = lab.stage("certificates", setting)
    plan = interrupted.plan()
    assert [action.id for action in plan.actions] == [f"token {old}"]
    interrupted.apply(plan)
    assert interrupted.verify().ok
    assert list(tokens) == [endpoint.token_id]
    lab.mark()
    again = lab.stage("certificates", setting)
    again.apply(again.plan())
    assert again.verify().ok
    assert lab.requests(mutating=True) == []
    lab.inject("proxmox.token-no-rights")
    assert keys.read_tokens(lab.context(setting))[0].exists is None
    lab.inject()


@pytest.mark.lab
def test_the_age_key_is_replaced_everywhere_although_the_run_is_killed_again_and_again(
    lab: Any, tmp_path: Path
) -> None:
    source, root = lab.context().root, tmp_path / "repository"
    for name in ("cluster-gitops", "params", "talos"):
        shutil.copytree(source / name, root / name)
    shutil.copy(source / keys.RULES, root)
    old, new = (source / "params/lab/lab.age").read_text(), age.generate()
    file = tmp_path / "keys.txt"
    file.write_text(old + new.file())

    def context() -> RunContext:
        made = lab.context(secrets={"age_key": {"file": str(file)}})
        rotate = params.platform.Rotate(age_key=new.recipient)
        platform = made.platform.model_copy(update={"rotate": rotate})
        redactor = Redactor()
        other = RunContext("phase1", platform, "lab", root, lab.folder / "cluster", redactor, Journal(None, redactor))
        lab.sites.append(other)
        return other

    def stage(after: int = 0) -> Any:
        perform = interrupting(certificates.STAGE.perform, after)
        gate = Gate(Approval.parse("all"), POLICIES["lab"], lab.chosen.platform.cluster.name)
        return stage_run(replace(certificates.STAGE, perform=perform), context(), gate)

    def files() -> list[Path]:
        return [*(entry.file for entry in encrypted_files(root)), *context().secrets.files()]

    content = {path: sops.read(path, old) for path in files()}
    for after in (1, 2, 1, 2):
        interrupted = stage(after)
        with pytest.raises(FluobookError, match="laptop"):
            interrupted.apply(interrupted.plan())
        assert {path: sops.read(path, file.read_text()) for path in files()} == content
    done = stage()
    done.apply(done.plan())
    assert done.verify().ok
    assert {path: sops.read(path, new.file()) for path in files()} == content
    assert not [path for path in files() if len(sops.recipients(path)) != 1]
    assert old.splitlines()[-1] not in "".join(path.read_text() for path in root.rglob("*.yaml"))
    file.write_text(new.file())
    last = stage()
    assert [action.id for action in last.plan().actions] == ["age key: secret"]
    last.apply(last.plan())
    secret = context().kube().get("v1", "Secret", "sops-age-key", "argocd")["data"]["keys.txt"]
    assert [each.recipient for each in age.read(base64.b64decode(secret).decode())] == [new.recipient]
    lab.mark()
    again = stage()
    again.apply(again.plan())
    assert again.verify().ok
    assert lab.requests(mutating=True) == []
