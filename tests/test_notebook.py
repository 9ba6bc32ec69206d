"""The notebook API: what `open_runbook` returns before and after a lab is needed, and the platform tree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fluobook
from fluobook import notebook, params
from fluobook.errors import BadFile, CheckFailed, UsageError
from fluobook.notebook import ask_person
from fluobook.stages.core.plan import Action, Answer, Plan, Question

if TYPE_CHECKING:
    from fluobook.notebook import PlatformTree, Runbook

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def runbook(monkeypatch: pytest.MonkeyPatch) -> Runbook:
    """A runbook that fails the test if it opens its context: nothing here needs a lab."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a lab was started")

    monkeypatch.setattr(notebook, "open_context", refuse)
    monkeypatch.chdir(REPOSITORY / "notebooks")
    return fluobook.open_runbook("phase1")


def test_a_target_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match=r"neither \"lab\" nor \"live\""):
        fluobook.open_runbook("phase1", target="prod")


def test_an_approval_of_a_stage_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="there is no stage 'nonsense'"):
        fluobook.open_runbook("phase1", approve="nonsense=123456")


def test_a_stage_may_be_approved_by_its_number():
    assert notebook.parse_approval("1=63155a").digests == {"create-vms": "63155a"}


@pytest.mark.parametrize(
    ("parameters", "message", "remedy"),
    [
        ({"platform": '{"cluster": {}}'}, "the parameter platform is a str, not a mapping", "-y 'platform: {…}'"),
        ({"platform": [1]}, "the parameter platform is a list, not a mapping", "-y 'platform: {…}'"),
        ({"approve": 123456}, "the parameter approve is 123456, not a text", "-y 'approve: \"create-vms=63155a\"'"),
        ({"approve": 1e5}, "the parameter approve is 100000.0, not a text", "-y 'approve"),
        ({"approve": True}, "the parameter approve is True, not a text", "-y 'approve"),
        ({"approve": "123456"}, "the approval '123456' is neither", "create-vms=63155a"),
        ({"phase": 1}, "the parameter phase is 1, not a text", "-y 'phase: \"phase1\"'"),
    ],
)
def test_a_parameter_of_another_type_is_explained_in_one_line(monkeypatch, parameters, message, remedy):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(UsageError) as refused:
        fluobook.open_runbook(**{"phase": "phase1"} | parameters)
    assert message in refused.value.message
    assert remedy in refused.value.remedy
    assert "\n" not in refused.value.message + refused.value.remedy


@pytest.mark.parametrize(
    "secrets", ['{"a": {}}', ["a"], {"apps/secrets/mail": "hunter22"}, {"apps/secrets/mail": None}]
)
def test_secrets_of_another_type_are_refused_without_their_value(runbook: Runbook, secrets):
    with pytest.raises(UsageError, match="not a mapping") as refused:
        runbook.secrets(secrets)
    assert "hunter22" not in refused.value.message + refused.value.remedy


def test_notebooks_of_a_run_use_the_params_that_it_has_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    platform = params.load("phase1", ["nodes.talos-worker-1.memory_gib=16"], root=REPOSITORY).platform.written
    record = {"phase": "phase1", "platform": platform}
    (tmp_path / "params.json").write_text(json.dumps(record))
    monkeypatch.setenv("FLUOBOOK_RUN", str(tmp_path))
    opened = fluobook.open_runbook("phase1").chosen.platform
    assert next(node for node in opened.nodes if node.name == "talos-worker-1").memory_gib == 16
    assert fluobook.open_runbook("phase2").chosen.phase == "phase2"
    (tmp_path / "params.json").write_text("{torn")
    with pytest.raises(BadFile, match=r"params\.json"):
        fluobook.open_runbook("phase1")


@pytest.fixture
def tree(runbook: Runbook) -> PlatformTree:
    return runbook.tree


@pytest.fixture
def broken_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlatformTree:
    for name in ("cluster-gitops", "params"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for name in (".sops.yaml", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    mqtt = tmp_path / "cluster-gitops/infrastructure/network-policies/fluodata.yaml"
    mqtt.write_text(mqtt.read_text().replace("port: 1883", "port: 1884"))
    monkeypatch.chdir(tmp_path)
    return fluobook.open_runbook("phase1").tree


def test_every_application_is_shown_with_its_source_and_namespace(tree: PlatformTree):
    rows = {row[1]: row for row in tree.applications().rows}
    assert set(rows) == {app.name for app in tree.tree.applications}
    cilium = tree.tree.application("cilium")
    assert rows["cilium"] == [-2, "cilium", "infrastructure", "cilium", cilium.version, "kube-system"]


def test_a_clean_tree_passes(tree: PlatformTree):
    assert tree.findings().rows == []
    assert "no finding" in str(tree.verify())
    assert "0 not answered as expected" in tree.reachability().note


def test_a_broken_tree_is_shown_and_does_not_pass(broken_tree: PlatformTree):
    assert "network-policies/fluodata.yaml:" in str(broken_tree.findings())
    assert "✗ rabbitmq" in str(broken_tree.reachability())
    assert "✗ 1883/TCP" in str(broken_tree.reaching("rabbitmq"))
    with pytest.raises(CheckFailed, match=r"\[reachability\]"):
        broken_tree.verify()


def test_no_value_of_a_secret_is_shown(tree: PlatformTree):
    shown = str(tree.secrets())
    assert "fluodata/fluodata-pg-credentials  username, password" in shown
    assert "ENC[" not in shown


@pytest.mark.parametrize("server", [True, False])
def test_without_buttons_a_prompt_asks(monkeypatch: pytest.MonkeyPatch, server: bool) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "01.ipynb")
    if not server:
        monkeypatch.delenv("JPY_SESSION_NAME")
    prompts: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt: prompts.append(prompt) or "yes")
    question = Question(Plan("create-vms", (Action("create a", "create", "vm a"),)))
    assert ask_person(question) == Answer("prompt", "yes")
    assert prompts == [question.prompt]
