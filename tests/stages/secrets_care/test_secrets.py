"""Secrets in Git over a copy of the tree: created, edited, rotated, re-keyed, and never in clear."""

from __future__ import annotations

import base64
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook import params
from fluobook.clients import age, sops
from fluobook.context import RunContext
from fluobook.errors import ApprovalNeeded, PlanChanged, Refused, Rejected, UsageError
from fluobook.gitops.check import RULES, findings
from fluobook.journal.journal import Journal
from fluobook.machine.secrets import new_secrets
from fluobook.notebook import StageRun
from fluobook.redact import Redactor
from fluobook.stages import secrets_care
from fluobook.stages.core.gate import Approval, Gate

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parents[3]
PG = "cluster-gitops/apps/secrets/pg-credentials.sops.yaml"
GRAFANA = "cluster-gitops/infrastructure/monitoring/secrets/grafana-admin.sops.yaml"
MAIL = "cluster-gitops/apps/secrets/mail.sops.yaml"
GENERATOR = "cluster-gitops/apps/secrets/ksops-generator.yaml"
LAB_KEY = (REPOSITORY / "params/lab/lab.age").read_text()
TYPED = 'typed-by-a-person: \'with "odd" signs'


@dataclass
class Care:
    """A copy of the repository, and the stage over it with one operator's key."""

    root: Path
    key: str = LAB_KEY
    target: str = "lab"

    def stage(
        self, told: dict[str, dict[str, str]] | None = None, *, approve: str = "all,cluster=fluodata", **options: Any
    ) -> StageRun:
        key = self.root / "operator.age"
        key.write_text(self.key)
        platform = params.load("phase1", root=REPOSITORY).platform
        nowhere = {"endpoints": {"10.10.0.10:6443": "127.0.0.1:1"}}
        platform = params.overlay(platform, {"secrets": {"age_key": {"file": str(key)}}, **nowhere})
        redactor = Redactor()
        context = RunContext(
            "phase1", platform, self.target, self.root, self.root / "cluster", redactor, Journal(None, redactor)
        )
        gate = Gate(Approval.parse(approve), self.target, "fluodata", None)
        return StageRun(secrets_care.stage(told or {}, **options), context, gate)

    def run(self, told: dict[str, dict[str, str]] | None = None, **options: Any) -> StageRun:
        stage = self.stage(told, **options)
        stage.apply(stage.plan())
        stage.verify()
        return stage

    def text(self, file: str) -> str:
        return (self.root / file).read_text()

    def values(self, file: str, key: str = "") -> dict[str, str]:
        return sops.read(self.root / file, key or self.key)["stringData"]

    def recipients(self, *identities: age.Identity) -> None:
        """Name these, and nobody else, in .sops.yaml."""
        config = self.root / ".sops.yaml"
        rules = yaml.safe_load(config.read_text())
        for rule in rules["creation_rules"]:
            rule["age"] = ",".join(one.recipient for one in identities)
        config.write_text(yaml.safe_dump(rules))

    def findings(self) -> list[str]:
        found = findings(
            self.root, {name: RULES[name] for name in ("cleartext", "generator", "mac", "recipient", "key")}
        )
        return [one.line_of_text() for one in found]


LAB = age.read(LAB_KEY)[0]


@pytest.fixture
def care(tmp_path: Path) -> Care:
    root = tmp_path / "repository"
    for name in ("cluster-gitops", "params"):
        shutil.copytree(REPOSITORY / name, root / name)
    shutil.copy(REPOSITORY / ".sops.yaml", root)
    (root / "cluster").mkdir()
    return Care(root)


def actions(stage: StageRun) -> list[tuple[str, str]]:
    return [(action.verb, action.object) for action in stage.plan().actions]


def data_key(text: str) -> str:
    return text[text.index("enc: |") : text.index("lastmodified")]


def test_a_tree_that_is_in_step_needs_nothing(care: Care):
    before = {file: file.read_bytes() for file in care.root.rglob("*") if file.is_file()}
    stage = care.run()
    assert stage.plan().actions == ()
    assert all(file.read_bytes() == content for file, content in before.items())


def test_a_new_secret_is_written_encrypted_and_listed(care: Care):
    told = {"apps/secrets/mail": {"@type": "kubernetes.io/basic-auth", "username": "ask", "password": "random"}}
    stage = care.stage(told, ask=lambda _question: TYPED)
    assert actions(stage) == [("create", "secret fluodata/mail"), ("list", "generator cluster-gitops/apps/secrets")]
    stage.apply(stage.plan())
    assert stage.verify().ok
    secret = sops.read(care.root / MAIL, LAB_KEY)
    assert secret["metadata"] == {"name": "mail", "namespace": "fluodata"}
    assert secret["type"] == "kubernetes.io/basic-auth"
    assert secret["stringData"]["username"] == TYPED
    assert len(secret["stringData"]["password"]) == 32
    assert yaml.safe_load(care.text(GENERATOR))["files"] == ["pg-credentials.sops.yaml", "mail.sops.yaml"]
    assert findings(care.root) == []
    assert care.stage(told, ask=lambda _question: TYPED).plan().actions == ()


def test_a_generators_comments_stay(care: Care):
    before = care.text(GENERATOR)
    care.run({"apps/secrets/mail": {"password": "random"}})
    assert care.text(GENERATOR) == before + "  - mail.sops.yaml\n"


def test_editing_sets_what_differs_and_keeps_the_rest(care: Care):
    old = care.values(PG)
    told = {PG: {"password": "ask", "host": "random"}}
    care.run(told, ask=lambda _question: TYPED)
    new = care.values(PG)
    assert new["username"] == old["username"]
    assert new["password"] == TYPED
    assert care.text(PG).startswith("# LAB SECRET")
    again = care.stage(told, ask=lambda _question: TYPED)
    assert again.plan().actions == ()
    care.run({PG: {"host": "remove"}})
    assert set(care.values(PG)) == {"username", "password"}
    assert care.findings() == []


def test_what_is_made_up_stays_until_it_is_renewed(care: Care):
    old = care.values(PG)["password"]
    assert care.stage({PG: {"password": "random"}}).plan().actions == ()
    stage = care.run({PG: {"password": "renew"}})
    assert stage.plan().actions == (), "renewed once, and not at each look"
    assert care.values(PG)["password"] != old


def test_values_under_data_stay_base64(care: Care):
    clear = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: fluodata}\ndata: {password: b2xkLW9uZQ==}\n"
    file = care.root / "cluster-gitops/apps/secrets/db.sops.yaml"
    file.write_text(sops.encrypt(clear, path=file, config=care.root / ".sops.yaml"))
    care.run({"apps/secrets/db": {"password": "ask"}}, ask=lambda _question: TYPED)
    assert base64.b64decode(sops.read(file, LAB_KEY)["data"]["password"]).decode() == TYPED


def test_a_data_key_is_renewed_when_asked_for(care: Care):
    before, values = care.text(PG), care.values(PG)
    stage = care.run({PG: {"@data-key": "renew"}})
    assert stage.plan().actions == ()
    assert care.values(PG) == values
    assert data_key(care.text(PG)) != data_key(before)


def test_a_recipient_that_is_added_can_read_all(care: Care):
    other = age.generate()
    care.recipients(LAB, other)
    assert {verb for verb, _ in actions(care.stage())} == {"re-key"}
    care.run()
    assert care.values(PG, other.secret) == care.values(PG)
    assert care.findings() == []


def test_a_recipient_that_is_removed_knows_no_later_data_key(care: Care):
    """Taking the recipient off is not enough: who kept the old data key could go on reading. So every byte is new."""
    other = age.generate()
    care.recipients(LAB, other)
    care.run()
    before = care.text(PG)
    care.recipients(LAB)
    stage = care.stage()
    plan = stage.plan()
    assert f"{other.recipient} is no recipient any more" in plan.actions[0].reason
    assert any("still knows the values" in note for note in plan.notes)
    stage.apply(plan)
    after = care.text(PG)
    assert sops.recipients(after) == (LAB.recipient,)
    grafted = yaml.safe_load(after)
    grafted["sops"]["age"] = yaml.safe_load(before)["sops"]["age"]
    with pytest.raises(Rejected, match="damaged"):
        sops.decrypt(yaml.safe_dump(grafted), other.secret)
    old_values = [line for line in before.splitlines() if "ENC[" in line]
    assert not set(old_values) & set(after.splitlines())
    assert care.findings() == []


def test_a_secret_that_was_saved_in_clear_is_encrypted(care: Care):
    secret = {"kind": "Secret", "metadata": {"name": "oops", "namespace": "fluodata"}, "stringData": {"word": TYPED}}
    (care.root / "cluster-gitops/apps/secrets/oops.sops.yaml").write_text(yaml.safe_dump(secret))
    stage = care.stage()
    assert actions(stage)[0] == ("encrypt", "secret fluodata/oops")
    stage.apply(stage.plan())
    assert stage.verify().ok
    assert "odd" not in care.text("cluster-gitops/apps/secrets/oops.sops.yaml")


def test_a_file_that_is_gone_leaves_the_list(care: Care):
    (care.root / PG).unlink()
    stage = care.stage()
    assert actions(stage) == [("list", "generator cluster-gitops/apps/secrets")]
    stage.apply(stage.plan())
    assert yaml.safe_load(care.text(GENERATOR))["files"] == []


def test_nothing_clear_reaches_a_disk_a_journal_or_an_output(
    care: Care, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    written: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    write_text: Callable[..., int] = Path.write_text
    monkeypatch.setattr(
        Path, "write_text", lambda self, text, *a, **k: written.append(text) or write_text(self, text, *a, **k)
    )
    stage = care.stage(
        {MAIL: {"username": "ask", "password": "random"}, PG: {"password": "renew"}}, ask=lambda _question: TYPED
    )
    plan = stage.plan()
    stage.apply(plan)
    checks = stage.verify()
    known = [TYPED, *care.values(MAIL).values(), care.values(PG)["password"]]
    shown = [str(plan), str(checks), str(stage.context.journal.events), repr(stage), *capsys.readouterr()]
    files = [file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    for value in known:
        spellings = {value, base64.b64encode(value.encode()).decode()}
        assert not [text for text in [*written, *shown, *files] for spelling in spellings if spelling in text]
    assert not list(care.root.rglob("*.partial"))


def test_a_value_in_a_notebook_is_refused_and_not_repeated(care: Care):
    with pytest.raises(UsageError) as caught:
        care.stage({PG: {"password": "hunter22-and-more"}})
    assert "hunter22" not in caught.value.diagnostics()
    assert "never stands in a notebook" in caught.value.cause


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({PG: {"pass word": "random"}}, "cannot be a key"),
        ({PG: {"@kind": "x"}}, "@kind is not understood"),
        ({"../params/x": {"a": "random"}}, "no place for a secret"),
        ({PG: {"password": "ask"}}, "nobody can be asked"),
    ],
)
def test_what_is_not_understood_is_named(care: Care, told: dict[str, dict[str, str]], words: str):
    with pytest.raises(UsageError, match=words):
        care.stage(told)


def test_a_folder_that_no_application_brings_is_refused(care: Care):
    with pytest.raises(Refused, match="no Application brings secrets from cluster-gitops/apps/rabbitmq") as caught:
        care.stage({"apps/rabbitmq/x": {"a": "random"}}).plan()
    assert "cluster-gitops/apps/secrets" in caught.value.remedy


def test_shutting_oneself_out_is_refused(care: Care):
    care.recipients(age.generate())
    before = care.text(PG)
    with pytest.raises(Refused, match="your key is another"):
        care.stage().plan()
    assert care.text(PG) == before


def test_a_file_changed_by_hand_is_refused(care: Care):
    file = care.root / PG
    file.write_text(file.read_text().replace("fluodata-pg-credentials", "other"))
    with pytest.raises(Rejected, match="MAC does not fit"):
        care.stage().plan()


def test_a_file_changed_after_the_plan_is_not_overwritten(care: Care):
    stage = care.stage({PG: {"password": "renew"}})
    plan = stage.plan()
    care.run({PG: {"@data-key": "renew"}})
    before = care.text(PG)
    with pytest.raises(PlanChanged):
        stage.apply(plan)
    assert care.text(PG) == before


def test_nothing_is_written_without_approval(care: Care):
    stage = care.stage({MAIL: {"password": "random"}}, approve="")
    with pytest.raises(ApprovalNeeded):
        stage.apply(stage.plan())
    assert not (care.root / MAIL).exists()


class TestLive:
    @pytest.fixture
    def live(self, care: Care) -> Care:
        mine = age.generate()
        care.recipients(mine)
        return Care(care.root, mine.file(), "live")

    def test_the_labs_recipient_is_refused(self, care: Care):
        with pytest.raises(Refused, match="names the lab's recipient") as caught:
            Care(care.root, age.generate().file(), "live").stage().plan()
        assert "put your own recipient" in caught.value.remedy

    def test_the_labs_key_is_refused(self, care: Care):
        with pytest.raises(Refused, match=r"the age key in .* is the lab's"):
            Care(care.root, LAB_KEY, "live").stage().plan()

    def test_values_that_everybody_knows_must_be_replaced(self, live: Care):
        with pytest.raises(Refused, match="known to everybody: admin-user, admin-password in") as caught:
            live.stage({PG: {"username": "keep", "password": "renew"}}).plan()
        assert '"admin-password": "renew"' in caught.value.remedy

    def test_the_way_to_live_replaces_every_value(self, live: Care):
        old = {file: sops.read(live.root / file, LAB_KEY)["stringData"] for file in (PG, GRAFANA)}
        live.run(
            {
                PG: {"username": "keep", "password": "renew"},
                GRAFANA: {"admin-user": "keep", "admin-password": "renew"},
            }
        )
        assert live.values(PG)["username"] == old[PG]["username"]
        assert live.values(PG)["password"] != old[PG]["password"]
        assert live.values(GRAFANA)["admin-password"] != old[GRAFANA]["admin-password"]
        assert "LAB SECRET" not in live.text(PG)
        assert live.stage().plan().actions == ()
        assert live.findings() == []

    def test_a_bundle_that_the_lab_could_read_is_never_carried_over(self, live: Care):
        file = live.root / "talos/secrets/fluodata.sops.yaml"
        file.parent.mkdir(parents=True)
        (live.root / PG).unlink()
        file.write_text(sops.encrypt("cluster: {id: abc}\n", path=file, recipients=[LAB.recipient]))
        with pytest.raises(Refused, match="everybody can read the cluster's PKI"):
            live.stage({}).plan()

    def test_a_bundle_is_re_keyed_with_its_content_unchanged(self, live: Care):
        mine, other = age.read(live.key)[0], age.generate()
        for file in (PG, GRAFANA):
            (live.root / file).unlink()
        bundle = live.root / "talos/secrets/fluodata.sops.yaml"
        bundle.parent.mkdir(parents=True)
        content = new_secrets().as_mapping()
        clear = yaml.safe_dump(content)
        bundle.write_text(sops.encrypt(clear, path=bundle, recipients=[mine.recipient, other.recipient]))
        live.run()
        assert sops.recipients(bundle) == (mine.recipient,)
        assert sops.read(bundle, live.key) == content
        assert content["cluster"]["id"] not in bundle.read_text()
