"""Stage 3: etcd once, whatever gets lost; and files that kubectl and talosctl can use."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
import yaml

from fluobook.clients import tools
from fluobook.errors import DeadlineExceeded, StageMissing
from fluobook.machine import access
from fluobook.stages import observe

pytestmark = pytest.mark.lab


@pytest.fixture
def made(labs):
    def make(*faults, **options):
        lab = labs(*faults, **options)
        lab.bring_up("create-vms", "apply-talos-config")
        lab.mark()
        return lab

    return make


def bootstraps(lab):
    return [r for r in lab.requests("talos") if r["path"].endswith("/Bootstrap")]


def test_etcd_is_bootstrapped_once_although_the_answer_is_lost(made):
    lab = made("talos.bootstrap-lost-once")
    lab.bring_up("bootstrap-kubernetes")
    assert len(lab.environment.machines.etcds) == 1


def test_the_written_kubeconfig_serves_kubectl_and_a_second_run_only_reads(made):
    lab = made()
    lab.bring_up("bootstrap-kubernetes")
    config = lab.folder / "cluster" / "kubeconfig"
    command = [str(tools.find("kubectl").path), "--kubeconfig", str(config), "get", "nodes", "--output", "name"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout
    assert set(told.split()) == {f"node/{node.name}" for node in lab.chosen.platform.nodes}
    assert {config.stat().st_mode & 0o777, (lab.folder / "cluster" / "talosconfig").stat().st_mode & 0o777} == {0o600}
    lab.mark()
    lab.bring_up("bootstrap-kubernetes")
    assert lab.requests(mutating=True) == []


def test_a_lost_kubeconfig_is_written_again_and_nothing_else_is_done(made):
    lab = made()
    lab.bring_up("bootstrap-kubernetes")
    config = lab.folder / "cluster" / "kubeconfig"
    config.unlink()
    stage = lab.stage("bootstrap-kubernetes")
    plan = stage.plan()
    assert [action.id for action in plan.actions] == ["file kubeconfig"]
    stage.apply(plan)
    assert yaml.safe_load(config.read_text())["kind"] == "Config"
    assert bootstraps(lab) == bootstraps(lab)[:1]


def test_expired_files_are_renewed_and_stage_9_says_so(made):
    lab = made()
    lab.bring_up("bootstrap-kubernetes")
    context = lab.context()
    bundle, files = context.secrets.bundle(), {}
    for name, identity in (
        ("kubeconfig", access.kubernetes_client(bundle, days=12)),
        ("talosconfig", access.talos_client(bundle, access.ADMIN, days=-0.001)),
    ):
        files[name] = context.home / name
        config = yaml.safe_load(files[name].read_text())
        pair = identity.to_base64()
        if name == "kubeconfig":
            config["users"][0]["user"] = {"client-certificate-data": pair["crt"], "client-key-data": pair["key"]}
        else:
            config["contexts"][config["context"]] |= pair
        files[name].write_text(access.dump(config))
    title = "kubeconfig and talosconfig are valid for more than 30 days"
    checks = {check.name: check for check in observe.STAGE.verify(context, None)}
    assert not checks[title].passed
    stage = lab.stage("bootstrap-kubernetes")
    plan = stage.plan()
    assert [(action.id, action.tone) for action in plan.actions] == [
        ("file kubeconfig", "change"),
        ("file talosconfig", "change"),
    ]
    assert ["expires on" in plan.actions[0].reason, "expired on" in plan.actions[1].reason] == [True, True]
    stage.apply(plan)
    assert stage.verify().ok
    lab.mark()
    assert not lab.stage("bootstrap-kubernetes").plan().actions
    checks = {check.name: check for check in observe.STAGE.verify(lab.context(), None)}
    assert (checks[title].passed, checks[title].result) == (True, "kubeconfig 11 months; talosconfig 11 months")
    assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o600}


@pytest.mark.parametrize("content", ["", "{", "kind: Config", "\0", "a: &a [*a, *a]"])
def test_a_damaged_kubeconfig_is_written_again(made, content):
    lab = made()
    lab.bring_up("bootstrap-kubernetes")
    config = lab.folder / "cluster" / "kubeconfig"
    config.write_text(content)
    lab.bring_up("bootstrap-kubernetes")
    assert yaml.safe_load(config.read_text())["kind"] == "Config"


def test_a_file_that_others_can_read_is_written_again_for_its_owner_alone(made):
    lab = made()
    lab.bring_up("bootstrap-kubernetes")
    config = lab.folder / "cluster" / "talosconfig"
    config.chmod(0o644)
    plan = lab.stage("bootstrap-kubernetes").plan()
    assert [(action.id, action.reason) for action in plan.actions] == [("file talosconfig", "is readable by others")]
    lab.bring_up("bootstrap-kubernetes")
    assert config.stat().st_mode & 0o777 == 0o600


def test_without_configured_nodes_the_missing_stage_is_named_and_nothing_is_changed(labs):
    lab = labs()
    lab.bring_up("create-vms")
    lab.mark()
    stage = lab.stage("bootstrap-kubernetes")
    with pytest.raises(StageMissing, match="is blocked: run apply-talos-config first"):
        stage.apply(stage.plan())
    assert lab.requests(mutating=True) == []


def test_a_clock_that_is_never_right_ends_at_the_deadline_with_talos_own_words(made):
    lab = made("talos.time-not-synced")
    stage = lab.stage("bootstrap-kubernetes", "deadlines.etcd=1")
    with pytest.raises(DeadlineExceeded, match="timed out after 1 s waiting for etcd") as caught:
        stage.apply(stage.plan())
    assert "time is not in sync yet" in caught.value.cause


def test_three_control_planes_make_one_etcd(labs):
    lab = labs(phase="phase3")
    lab.bring_up("host-network", "create-vms", "apply-talos-config", "bootstrap-kubernetes")
    assert len(lab.environment.machines.etcds) == 1
    assert len(lab.environment.machines.etcds[0].members) == 3


def test_a_control_plane_without_data_joins_and_is_not_told_to_begin_a_cluster(labs):
    """The first control plane was replaced, and the others cannot report their members just now."""
    lab = labs(phase="phase3")
    lab.bring_up("host-network", "create-vms", "apply-talos-config", "bootstrap-kubernetes")
    stage = lab.stage("bootstrap-kubernetes")
    observation = stage.stage.observe(stage.context)
    plan = stage.stage.plan(stage.context.platform, replace(observation, without_config=(), members={}))
    lab.mark()
    bootstrap = next(action for action in plan.actions if action.verb == "bootstrap")
    assert stage.stage.perform(stage.context, bootstrap, Silent())["answer"] == "runs elsewhere"
    assert bootstraps(lab) == []


class Silent:
    """Hears what an action tells, and keeps it."""

    def __call__(self, word):
        pass

    def evidence(self, **fields):
        pass
