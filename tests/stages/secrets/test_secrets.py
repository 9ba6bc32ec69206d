"""Secrets in Git, in a copy of the tree: created, edited, rotated, re-keyed, and never in plaintext on a disk."""

from __future__ import annotations

import base64
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fluobook import params
from fluobook.clients import age, sops
from fluobook.context import POLICIES, RunContext
from fluobook.errors import ApprovalNeeded, CheckFailed, PlanChanged, Refused, Rejected, UsageError
from fluobook.failures import present
from fluobook.gitops.check import RULES, findings
from fluobook.journal.journal import Journal
from fluobook.machine.secrets import new_secrets
from fluobook.notebook import StageRun
from fluobook.redact import Redactor
from fluobook.stages import secrets
from fluobook.stages.core.plan import Approval, Gate

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Path(__file__).resolve().parents[3]
PG = "cluster-gitops/apps/secrets/pg-credentials.sops.yaml"
GRAFANA = "cluster-gitops/infrastructure/monitoring/secrets/grafana-admin.sops.yaml"
MAIL = "cluster-gitops/apps/secrets/mail.sops.yaml"
GENERATOR = "cluster-gitops/apps/secrets/ksops-generator.yaml"
LAB_KEY = (SOURCE / "params/lab/lab.age").read_text()
TYPED = 'typed-by-a-person: \'with "odd" signs'


@dataclass
class Repository:
    """A copy of the repository, and the stage over it with one operator's key."""

    root: Path
    key: str = LAB_KEY
    target: str = "lab"

    def stage(
        self, changes: dict[str, dict[str, str]] | None = None, *, approve: str = "all,cluster=fluodata", **options: Any
    ) -> StageRun:
        key = self.root / "operator.age"
        key.write_text(self.key)
        platform = params.load("phase1", root=SOURCE).platform
        nowhere = {"endpoints": {"10.10.0.10:6443": "127.0.0.1:1"}}
        platform = params.overlay(platform, {"secrets": {"age_key": {"file": str(key)}}, **nowhere})
        redactor = Redactor()
        context = RunContext(
            "phase1", platform, self.target, self.root, self.root / "cluster", redactor, Journal(None, redactor)
        )
        gate = Gate(Approval.parse(approve), POLICIES[self.target], "fluodata", None)
        return StageRun(secrets.stage(changes or {}, **options), context, gate)

    def run(self, changes: dict[str, dict[str, str]] | None = None, **options: Any) -> StageRun:
        stage = self.stage(changes, **options)
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
            rule["age"] = ",".join(identity.recipient for identity in identities)
        config.write_text(yaml.safe_dump(rules))

    def findings(self) -> list[str]:
        listed = findings(
            self.root, {name: RULES[name] for name in ("cleartext", "generator", "mac", "recipient", "key")}
        )
        return [finding.line_of_text() for finding in listed]


LAB = age.read(LAB_KEY)[0]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    root = tmp_path / "repository"
    for name in ("cluster-gitops", "params", "talos"):
        shutil.copytree(SOURCE / name, root / name)
    shutil.copy(SOURCE / ".sops.yaml", root)
    (root / "cluster").mkdir()
    return Repository(root)


def actions(stage: StageRun) -> list[tuple[str, str]]:
    return [(action.verb, action.object) for action in stage.plan().actions]


def data_key(text: str) -> str:
    return text[text.index("enc: |") : text.index("lastmodified")]


def test_a_tree_in_step_with_sops_yaml_needs_no_actions(repository: Repository):
    before = {file: file.read_bytes() for file in repository.root.rglob("*") if file.is_file()}
    stage = repository.run()
    assert stage.plan().actions == ()
    assert all(file.read_bytes() == content for file, content in before.items())


def test_a_new_secret_is_written_encrypted_and_listed(repository: Repository):
    changes = {"apps/secrets/mail": {"@type": "kubernetes.io/basic-auth", "username": "ask", "password": "random"}}
    stage = repository.stage(changes, ask=lambda _question: TYPED)
    assert actions(stage) == [("create", "secret fluodata/mail"), ("list", "generator cluster-gitops/apps/secrets")]
    stage.apply(stage.plan())
    assert stage.verify().ok
    secret = sops.read(repository.root / MAIL, LAB_KEY)
    assert secret["metadata"] == {"name": "mail", "namespace": "fluodata"}
    assert secret["type"] == "kubernetes.io/basic-auth"
    assert secret["stringData"]["username"] == TYPED
    assert len(secret["stringData"]["password"]) == 32
    assert yaml.safe_load(repository.text(GENERATOR))["files"] == ["pg-credentials.sops.yaml", "mail.sops.yaml"]
    assert findings(repository.root) == []
    assert repository.stage(changes, ask=lambda _question: TYPED).plan().actions == ()


def test_a_generators_comments_are_kept(repository: Repository):
    before = repository.text(GENERATOR)
    repository.run({"apps/secrets/mail": {"password": "random"}})
    assert repository.text(GENERATOR) == before + "  - mail.sops.yaml\n"


def test_editing_sets_what_differs_and_keeps_the_rest(repository: Repository):
    old = repository.values(PG)
    changes = {PG: {"password": "ask", "host": "random"}}
    repository.run(changes, ask=lambda _question: TYPED)
    new = repository.values(PG)
    assert new["username"] == old["username"]
    assert new["password"] == TYPED
    assert repository.text(PG).startswith("# LAB SECRET")
    again = repository.stage(changes, ask=lambda _question: TYPED)
    assert again.plan().actions == ()
    repository.run({PG: {"host": "remove"}})
    assert set(repository.values(PG)) == {"username", "password"}
    assert repository.findings() == []


def test_a_generated_value_is_kept_until_it_is_renewed(repository: Repository):
    old = repository.values(PG)["password"]
    assert repository.stage({PG: {"password": "random"}}).plan().actions == ()
    stage = repository.run({PG: {"password": "renew"}})
    assert stage.plan().actions == (), "renewed once, not at each observation"
    assert repository.values(PG)["password"] != old


def test_values_under_data_stay_base64(repository: Repository):
    clear = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: fluodata}\ndata: {password: b2xkLW9uZQ==}\n"
    file = repository.root / "cluster-gitops/apps/secrets/db.sops.yaml"
    file.write_text(sops.encrypt(clear, path=file, config=repository.root / ".sops.yaml"))
    repository.run({"apps/secrets/db": {"password": "ask"}}, ask=lambda _question: TYPED)
    assert base64.b64decode(sops.read(file, LAB_KEY)["data"]["password"]).decode() == TYPED


def test_a_data_key_is_renewed_on_request(repository: Repository):
    before, values = repository.text(PG), repository.values(PG)
    stage = repository.run({PG: {"@data-key": "renew"}})
    assert stage.plan().actions == ()
    assert repository.values(PG) == values
    assert data_key(repository.text(PG)) != data_key(before)


def test_an_added_recipient_can_read_every_file(repository: Repository):
    other = age.generate()
    repository.recipients(LAB, other)
    assert {verb for verb, _ in actions(repository.stage())} == {"re-key"}
    repository.run()
    assert repository.values(PG, other.secret) == repository.values(PG)
    assert repository.findings() == []


def test_a_removed_recipient_knows_no_later_data_key(repository: Repository):
    """Removing the recipient is not enough: the old data key would still decrypt the file. So every byte is new."""
    other = age.generate()
    repository.recipients(LAB, other)
    repository.run()
    before = repository.text(PG)
    repository.recipients(LAB)
    stage = repository.stage()
    plan = stage.plan()
    assert f"{other.recipient} is no longer a recipient" in plan.actions[0].reason
    assert any("still knows the values" in note for note in plan.notes)
    stage.apply(plan)
    after = repository.text(PG)
    assert sops.recipients(after) == (LAB.recipient,)
    grafted = yaml.safe_load(after)
    grafted["sops"]["age"] = yaml.safe_load(before)["sops"]["age"]
    with pytest.raises(Rejected, match="damaged"):
        sops.decrypt(yaml.safe_dump(grafted), other.secret)
    old_values = [line for line in before.splitlines() if "ENC[" in line]
    assert not set(old_values) & set(after.splitlines())
    assert repository.findings() == []


def test_a_secret_saved_in_plaintext_is_encrypted(repository: Repository):
    secret = {"kind": "Secret", "metadata": {"name": "oops", "namespace": "fluodata"}, "stringData": {"word": TYPED}}
    (repository.root / "cluster-gitops/apps/secrets/oops.sops.yaml").write_text(yaml.safe_dump(secret))
    stage = repository.stage()
    assert actions(stage)[0] == ("encrypt", "secret fluodata/oops")
    stage.apply(stage.plan())
    assert stage.verify().ok
    assert "odd" not in repository.text("cluster-gitops/apps/secrets/oops.sops.yaml")


def test_a_deleted_file_is_removed_from_the_list_only_when_its_loss_is_approved(repository: Repository):
    (repository.root / PG).unlink()
    stage = repository.stage()
    plan = stage.plan()
    assert actions(stage) == [("unlist", "generator cluster-gitops/apps/secrets")]
    assert plan.destroys == ("pg-credentials",)
    assert "Argo CD deletes the Secrets pg-credentials from the cluster" in plan.table().text()
    with pytest.raises(ApprovalNeeded, match="needs approval"):
        stage.apply(plan)
    assert "pg-credentials" in repository.text(GENERATOR)
    stage = repository.stage(approve=f"secrets={plan.digest}")
    stage.apply(stage.plan())
    assert yaml.safe_load(repository.text(GENERATOR))["files"] == []


SECOND = """
apiVersion: viaduct.ai/v1
kind: ksops
metadata:
  name: bridge-env
  annotations:
    config.kubernetes.io/function: |
      exec:
        path: ksops
"""


@pytest.mark.parametrize("entry", ["./pg-credentials.sops.yaml", "nested/../pg-credentials.sops.yaml"])
def test_an_entry_is_the_file_that_kustomize_would_read(repository: Repository, entry: str):
    generator = repository.root / GENERATOR
    generator.write_text(
        repository.text(GENERATOR).replace("- pg-cred", f"- {entry.removesuffix('pg-credentials.sops.yaml')}pg-cred")
    )
    assert repository.findings() == []
    assert repository.stage().plan().actions == ()
    repository.run({"apps/secrets/mail": {"password": "random"}})
    assert yaml.safe_load(repository.text(GENERATOR))["files"] == [entry, "mail.sops.yaml"]


def test_a_file_in_a_folder_of_its_own_stays_listed(repository: Repository):
    nested = repository.root / "cluster-gitops/apps/secrets/nested"
    nested.mkdir()
    (repository.root / PG).rename(nested / "pg-credentials.sops.yaml")
    generator = repository.root / GENERATOR
    generator.write_text(repository.text(GENERATOR).replace("- pg-cred", "- nested/pg-cred"))
    assert findings(repository.root) == []
    assert repository.stage().plan().actions == ()


@pytest.mark.parametrize(
    "content",
    [
        SECOND + "secretFrom:\n  - metadata: {name: bridge-env, namespace: fluodata}\n    envs: [bridge.sops.env]\n",
        SECOND + "secretFrom:\n  - metadata: {name: b, namespace: fluodata}\n    files: [key=./bridge.sops.env]\n",
    ],
)
def test_a_second_generator_stays_as_it_is(repository: Repository, content: str):
    folder = repository.root / "cluster-gitops/apps/secrets"
    config = repository.root / ".sops.yaml"
    rules = yaml.safe_load(config.read_text())
    rules["creation_rules"].append({"path_regex": r"\.sops\.env$", "age": LAB.recipient})
    config.write_text(yaml.safe_dump(rules))
    dotenv = sops.encrypt("BRIDGE_PASSWORD=sample-word\n", path=folder / "bridge.sops.env", config=config)
    (folder / "bridge.sops.env").write_text(dotenv)
    (folder / "a-generator.yaml").write_text(content)
    listed = folder / "kustomization.yaml"
    listed.write_text(listed.read_text().replace("generators:\n", "generators:\n  - a-generator.yaml\n"))
    assert findings(repository.root) == []
    repository.run({"apps/secrets/mail": {"password": "random"}})
    assert (folder / "a-generator.yaml").read_text() == content
    listed.write_text(listed.read_text().replace("  - ksops-generator.yaml\n", ""))
    with pytest.raises(Refused, match=r"a-generator\.yaml has more than a list"):
        repository.stage({"apps/secrets/more": {"password": "random"}}).plan()
    listed.write_text(listed.read_text().replace("generators:\n", "generators:\n  - ksops-generator.yaml\n"))
    assert "mail.sops.yaml" in repository.text(GENERATOR)
    assert findings(repository.root) == []


ODD = {
    "stringData: {port: 1883, tls: true, password: sample-word-1}": "port is not a text: write it in quotes",
    "data: {port: not-base64!}": "port is not base64",
    'stringData: {port: null, proxy: ""}': "port is empty, proxy is empty",
    "data: {port: 5}": "port is not a text: write it in quotes",
}


@pytest.mark.parametrize("content", ODD)
def test_a_value_that_kubernetes_refuses_spares_the_other_files(repository: Repository, content: str):
    file = repository.root / "cluster-gitops/apps/secrets/odd.sops.yaml"
    plain = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: odd, namespace: fluodata}}\n{content}\n"
    file.write_text(sops.encrypt(plain, path=file, config=repository.root / ".sops.yaml"))
    before = file.read_bytes()
    stage = repository.stage({PG: {"password": "renew"}, "apps/secrets/odd": {"@data-key": "renew"}})
    plan = stage.plan()
    assert ("change", "secret fluodata/fluodata-pg-credentials") in [(a.verb, a.object) for a in plan.actions]
    assert any(ODD[content] in note and "apps/secrets/odd" in note for note in plan.notes)
    stage.apply(plan)
    assert file.read_bytes() == before
    with pytest.raises(CheckFailed, match="Kubernetes takes every value") as caught:
        stage.verify()
    assert f"odd.sops.yaml: {ODD[content]}" in caught.value.message
    keys = {"port": "renew", "tls": "remove", "proxy": "remove"}
    repository.run({"apps/secrets/odd": keys})
    assert not [note for note in repository.stage().plan().notes if "odd" in note]


def test_a_new_secret_goes_to_the_namespace_that_is_chosen(repository: Repository):
    stage = repository.stage({"apps/secrets/mail": {"@namespace": "monitoring", "password": "random"}})
    assert actions(stage)[0] == ("create", "secret monitoring/mail")
    stage.apply(stage.plan())
    assert sops.read(repository.root / MAIL, LAB_KEY)["metadata"] == {"name": "mail", "namespace": "monitoring"}
    with pytest.raises(UsageError, match="cannot be the name"):
        repository.stage({"apps/secrets/mail": {"@namespace": "Not_A_Name", "password": "random"}})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pgp": "FBC7B9E2A4F9289AC0C1D4843D16CEE4A27381B4"}, "names pgp for"),
        (
            {"age": None, "key_groups": [{"age": [LAB.recipient]}, {"age": [LAB.recipient]}]},
            "names 2 of 2 key groups for",
        ),
    ],
)
def test_a_recipient_that_argo_cd_cannot_be_is_refused_by_name(repository: Repository, change: Any, named: str):
    config = repository.root / ".sops.yaml"
    rules = yaml.safe_load(config.read_text())
    rules["creation_rules"][1] |= change
    config.write_text(yaml.safe_dump(rules))
    with pytest.raises(Refused, match=named) as caught:
        repository.stage({PG: {"password": "renew"}}).plan()
    assert "Argo CD decrypts with one age key" in caught.value.cause


def test_an_ssh_key_is_a_recipient_like_any_other(repository: Repository):
    config = repository.root / ".sops.yaml"
    rules = yaml.safe_load(config.read_text())
    key = Ed25519PrivateKey.generate().public_key()
    ssh = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    rules["creation_rules"][1]["age"] = f"{LAB.recipient},{ssh} jo@example.org"
    config.write_text(yaml.safe_dump(rules))
    assert {verb for verb, _ in actions(repository.stage())} == {"re-key"}
    repository.run()
    assert repository.stage().plan().actions == ()
    assert repository.findings() == []


def test_no_plaintext_reaches_a_disk_a_journal_or_an_output(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    stage = repository.stage(
        {MAIL: {"username": "ask", "password": "random"}, PG: {"password": "renew"}}, ask=lambda _question: TYPED
    )
    plan = stage.plan()
    stage.apply(plan)
    checks = stage.verify()
    known = [TYPED, *repository.values(MAIL).values(), repository.values(PG)["password"]]
    shown = [str(plan), str(checks), str(stage.context.journal.events), repr(stage), *capsys.readouterr()]
    files = [file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    for value in known:
        spellings = {value, base64.b64encode(value.encode()).decode()}
        assert not [text for text in [*written, *shown, *files] for spelling in spellings if spelling in text]
    assert not list(repository.root.rglob("*.partial"))


@pytest.mark.parametrize("word", ["fluodata", "newsletter", "username", "pg-credentials", "talos-cp-1", "credential"])
def test_a_value_that_is_an_ordinary_word_masks_no_name(repository: Repository, word: str):
    changes = {"apps/secrets/newsletter": {"username": "ask", "password": "random"}}
    stage = repository.stage(changes, ask=lambda _question: word)
    actions = [action.canonical() for action in stage.plan().actions]
    shown = str(stage.context.redactor.data([*actions, word, stage.context.platform.nodes[0].name, "gateway-api"]))
    names = ("secret fluodata/newsletter", "'username'", "apps/secrets/newsletter.sops.yaml", "gateway-api", "pg-cred")
    assert all(name in shown for name in names), shown
    assert ("‹redacted›" in shown) == (word == "credential")


def test_a_value_in_a_notebook_is_refused_and_not_repeated(repository: Repository):
    with pytest.raises(UsageError) as caught:
        repository.stage({PG: {"password": "hunter22-and-more"}})
    assert "hunter22" not in present(caught.value).text()
    assert "never contains the value itself" in caught.value.cause


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({PG: {"pass word": "random"}}, "cannot be a key"),
        ({PG: {"@kind": "x"}}, "unknown option @kind"),
        ({"../params/x": {"a": "random"}}, "cannot hold a secret"),
        ({PG: {"password": "ask"}}, "nobody can be asked"),
    ],
)
def test_an_invalid_request_is_named(repository: Repository, changes: dict[str, dict[str, str]], message: str):
    with pytest.raises(UsageError, match=message):
        repository.stage(changes)


def test_a_folder_that_no_application_deploys_is_refused(repository: Repository):
    with pytest.raises(Refused, match="no Application deploys secrets from cluster-gitops/apps/rabbitmq") as caught:
        repository.stage({"apps/rabbitmq/x": {"a": "random"}}).plan()
    assert "cluster-gitops/apps/secrets" in caught.value.remedy


def test_removing_ones_own_key_is_refused(repository: Repository):
    repository.recipients(age.generate())
    before = repository.text(PG)
    with pytest.raises(Refused, match="which is not your key"):
        repository.stage().plan()
    assert repository.text(PG) == before


def test_a_file_changed_by_hand_is_refused(repository: Repository):
    file = repository.root / PG
    file.write_text(file.read_text().replace("fluodata-pg-credentials", "other"))
    with pytest.raises(Rejected, match="MAC does not match"):
        repository.stage().plan()


def test_a_file_changed_after_the_plan_is_not_overwritten(repository: Repository):
    stage = repository.stage({PG: {"password": "renew"}})
    plan = stage.plan()
    repository.run({PG: {"@data-key": "renew"}})
    before = repository.text(PG)
    with pytest.raises(PlanChanged):
        stage.apply(plan)
    assert repository.text(PG) == before


def test_nothing_is_written_without_approval(repository: Repository):
    stage = repository.stage({MAIL: {"password": "random"}}, approve="")
    with pytest.raises(ApprovalNeeded):
        stage.apply(stage.plan())
    assert not (repository.root / MAIL).exists()


class TestLive:
    @pytest.fixture
    def live(self, repository: Repository) -> Repository:
        mine = age.generate()
        repository.recipients(mine)
        return Repository(repository.root, mine.file(), "live")

    def test_the_labs_recipient_is_refused(self, repository: Repository):
        with pytest.raises(Refused, match="names the lab's recipient") as caught:
            Repository(repository.root, age.generate().file(), "live").stage().plan()
        assert "put your own recipient" in caught.value.remedy

    def test_the_labs_key_is_refused(self, repository: Repository):
        with pytest.raises(Refused, match=r"the age key in .* is the lab's"):
            Repository(repository.root, LAB_KEY, "live").stage().plan()

    def test_public_values_must_be_replaced(self, live: Repository):
        with pytest.raises(Refused, match="are public: admin-user, admin-password in") as caught:
            live.stage({PG: {"username": "keep", "password": "renew"}}).plan()
        assert '"admin-password": "renew"' in caught.value.remedy

    def test_going_live_replaces_every_value(self, live: Repository):
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

    def test_a_bundle_that_the_lab_could_decrypt_is_refused(self, live: Repository):
        file = live.root / "talos/secrets/fluodata.sops.yaml"
        file.parent.mkdir(parents=True)
        (live.root / PG).unlink()
        file.write_text(sops.encrypt("cluster: {id: abc}\n", path=file, recipients=[LAB.recipient]))
        with pytest.raises(Refused, match="everybody can read the cluster's PKI"):
            live.stage({}).plan()

    def test_a_bundle_is_re_keyed_with_its_content_unchanged(self, live: Repository):
        mine, other = age.read(live.key)[0], age.generate()
        for file in map(live.root.joinpath, (PG, GRAFANA)):
            file.unlink()
            generator = file.with_name("ksops-generator.yaml")
            generator.write_text(generator.read_text().replace(f"  - {file.name}\n", "  []\n"))
        bundle = live.root / "talos/secrets/fluodata.sops.yaml"
        bundle.parent.mkdir(parents=True)
        content = new_secrets().as_mapping()
        clear = yaml.safe_dump(content)
        bundle.write_text(sops.encrypt(clear, path=bundle, recipients=[mine.recipient, other.recipient]))
        live.run()
        assert sops.recipients(bundle) == (mine.recipient,)
        assert sops.read(bundle, live.key) == content
        assert content["cluster"]["id"] not in bundle.read_text()
