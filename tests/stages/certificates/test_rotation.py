"""The rotation of an authority: what is planned, what is written when, and a cluster that is killed at every action."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fluobook import cluster_secrets, params
from fluobook.clients import age, sops
from fluobook.clients.kube import Kube
from fluobook.clients.talos import Mode, probe
from fluobook.cluster_secrets import ClusterSecrets
from fluobook.context import POLICIES
from fluobook.errors import FluobookError, ParamsError, Refused
from fluobook.machine import access, generate
from fluobook.machine.contracts import fold, value_at
from fluobook.machine.generation import Documents
from fluobook.machine.pki import decode_pem
from fluobook.machine.secrets import ACCEPT, DROP, ISSUE, PHASES, Rotation, SecretsBundle, begun, new_secrets
from fluobook.machine.validation import decoding_problem, refusals
from fluobook.notebook import stage_run
from fluobook.params.secrets import SecretReferences
from fluobook.params.versions import CONTRACTS
from fluobook.redact import Redactor
from fluobook.stages import certificates
from fluobook.stages.certificates import authorities
from fluobook.stages.certificates.authorities import BEHIND, DONE, Authority, before
from fluobook.stages.core.plan import Approval, Gate
from tests.stages.conftest import interrupting

if TYPE_CHECKING:
    from collections.abc import Callable

PLATFORM = params.load("phase1", root=params.repository_root()).platform
NAMES = [node.name for node in PLATFORM.nodes]
WORKERS_FIRST = [*NAMES[1:], NAMES[0]]
NOW = dt.datetime(2027, 3, 1, tzinfo=dt.UTC)
OLD = NOW - dt.timedelta(days=400)


def ids(phase: str = "", wanted: dt.datetime | None = NOW, name: str = "talos", **nodes: str) -> list[str]:
    states = dict.fromkeys(NAMES, DONE) | {node.replace("_", "-"): state for node, state in nodes.items()}
    return [action.id for action in authorities.actions(PLATFORM, Authority(name, OLD, wanted, phase, states), ())]


def of(phase: str, *names: str) -> list[str]:
    return [f"talos {phase} {name}" for name in names or (WORKERS_FIRST if phase == DROP else NAMES)]


ALL = [*of(ACCEPT), "talos: issue", *of(ISSUE), "talos: drop", *of(DROP), "talos: end"]


def test_every_node_passes_a_phase_before_the_next_begins() -> None:
    assert ids() == ["talos: gates", "talos: new", *ALL]


def test_workloads_read_the_new_authority_of_kubernetes_before_an_api_server_shows_it() -> None:
    steps = ids(name="kubernetes")
    assert steps.index("kubernetes: restart") == steps.index("kubernetes: issue") - 1
    assert "kubernetes: restart" in ids(ACCEPT, name="kubernetes")
    assert "kubernetes: restart" not in ids(ISSUE, name="kubernetes")


@pytest.mark.parametrize(
    ("phase", "behind", "left"),
    [
        (ACCEPT, NAMES, ALL),
        (ACCEPT, NAMES[1:], [*of(ACCEPT, *NAMES[1:]), *ALL[3:]]),
        (ISSUE, NAMES[2:], [*of(ISSUE, *NAMES[2:]), *ALL[7:]]),
        (DROP, (), ["talos: end"]),
    ],
)
def test_what_was_killed_goes_on_from_the_phase_in_the_file_and_from_what_the_nodes_say(
    phase: str, behind: list[str], left: list[str]
) -> None:
    states = {name.replace("-", "_"): BEHIND for name in behind}
    assert ids(phase, None, **states) == ["talos: gates", *left]


def test_no_phase_goes_on_without_a_node_or_over_changes_of_somebody_else() -> None:
    with pytest.raises(Refused, match="talos-worker-1: timed out"):
        ids(ACCEPT, talos_worker_1="timed out")


@pytest.mark.parametrize(
    ("wanted", "phase", "due"), [(None, "", False), (OLD, "", False), (NOW, "", True), (None, ISSUE, True)]
)
def test_an_authority_is_due_if_it_is_older_than_asked_or_if_its_rotation_has_begun(
    wanted: dt.datetime | None, phase: str, due: bool
) -> None:
    assert Authority("talos", OLD, wanted, phase).is_due is due


@pytest.fixture(scope="module")
def bundle() -> SecretsBundle:
    return new_secrets()


def test_in_each_phase_a_node_of_the_phase_before_trusts_one_of_the_present_phase(bundle: SecretsBundle) -> None:
    begins = begun(bundle, "talos")
    for phase in PHASES:
        now = bundle.rotating({"talos": replace(begins, phase=phase)})
        (earlier,) = before(now, "talos")
        for one, other in ((now, earlier), (earlier, now)):
            assert one.talos.crt in (other.talos.crt, *other.accepted("talos"))
        assert {begins.old.crt.strip(), begins.new.crt.strip()} == set(split(now.trusted("talos")))
        assert Rotation.parse(now.rotations["talos"].as_mapping()) == now.rotations["talos"]
        assert {begins.old.key, begins.new.key} <= set(now.values())
        assert begins.new.key not in str(now)
        assert "rotations" not in now.as_mapping()
    with pytest.raises(ParamsError):
        Rotation.parse({"phase": "later", "old": {}, "new": {}})


@pytest.mark.parametrize(("name", "place"), [("talos", "machine"), ("kubernetes", "cluster")])
@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_configurations_of_each_phase_are_valid_and_the_last_is_that_of_a_new_cluster(
    bundle: SecretsBundle, contract: str, name: str, place: str
) -> None:
    begins = begun(bundle, name)
    accepted = {ACCEPT: [begins.new.crt], ISSUE: [begins.old.crt], DROP: []}
    talos = f"v{contract}.0"
    for phase in PHASES:
        secrets = bundle.rotating({name: replace(begins, phase=phase)})
        made = generate("x", "https://x:6443", "1.35.4", secrets, "/dev/sda", contract=contract)
        for role in ("controlplane", "worker"):
            documents = made.of(role)
            found = value_at(fold(documents), f"{place}.acceptedCAs") or []
            assert decode_pem(value_at(fold(documents), f"{place}.ca.crt")) == getattr(secrets, name).crt
            assert [decode_pem(each["crt"]) for each in found] == accepted[phase]
            assert [decoding_problem(each, talos) for each in documents if decoding_problem(each, talos)] == []
            assert refusals(documents, talos) == refusals(generate_plain(bundle, contract).of(role), talos)
    renewed: Any = {name: begins.new}
    fresh = generate_plain(replace(bundle, **renewed), contract)
    assert (made.controlplane, made.worker) == (fresh.controlplane, fresh.worker)


def generate_plain(secrets: SecretsBundle, contract: str) -> Documents:
    return generate("x", "https://x:6443", "1.35.4", secrets, "/dev/sda", contract=contract)


def split(pem: str) -> list[str]:
    end = "-----END CERTIFICATE-----"
    return [f"{part.strip()}\n{end}" for part in pem.split(end) if part.strip()]


@pytest.mark.parametrize("dies", range(5))
def test_a_run_that_dies_at_any_write_leaves_both_authorities_and_a_bundle_that_talosctl_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: SecretsBundle, dies: int
) -> None:
    key = age.generate()
    (tmp_path / "keys.txt").write_text(key.file())
    references = SecretReferences.model_validate({"age_key": {"file": "keys.txt"}, "bundle": "x.sops.yaml"})
    monkeypatch.setattr(cluster_secrets, "new_secrets", lambda: bundle)
    ClusterSecrets(references, tmp_path, Redactor()).create_bundle()
    writes, write = 0, cluster_secrets.write_text

    def dying(*arguments: Any, **more: Any) -> None:
        nonlocal writes
        if writes == dies:
            raise KeyboardInterrupt
        writes += 1
        write(*arguments, **more)

    monkeypatch.setattr(cluster_secrets, "write_text", dying)
    secrets = ClusterSecrets(references, tmp_path, Redactor())
    steps = [
        lambda: secrets.begin_rotation("talos"),
        lambda: secrets.advance_rotation("talos", ISSUE),
        lambda: secrets.advance_rotation("talos", DROP),
        lambda: secrets.end_rotation("talos"),
    ]
    reached = 0
    try:
        for step in steps:
            step()
            reached += 1
    except KeyboardInterrupt:
        pass
    left = ClusterSecrets(references, tmp_path, Redactor())
    assert left.rotation_path.exists() is (0 < dies < 4)
    known = left.bundle()
    assert sorted(known.rotations) == (["talos"] if left.rotation_path.exists() else [])
    if reached < len(steps):
        assert bundle.talos.crt in (known.talos.crt, *split_of(known))
    SecretsBundle.parse(sops.read(left.path, key.file()))
    for path in tmp_path.glob("*.sops.yaml*"):
        assert "PRIVATE" not in path.read_text()
        assert known.talos.key not in path.read_text()


def split_of(bundle: SecretsBundle) -> tuple[str, ...]:
    return tuple(pair.crt for each in bundle.rotations.values() for pair in (each.old, each.new))


@pytest.mark.lab
def test_the_authority_of_talos_is_rotated_although_the_run_is_killed_again_and_again(labs: Callable[..., Any]) -> None:
    lab = labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")
    first = lab.context().secrets.bundle()
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    setting = f'platform.rotate.talos_ca="{now}"'
    assert lab.stage("certificates", 'platform.rotate.talos_ca="2020-01-01"').plan().actions == ()
    for after in (3, 4, 5, 4, 3):
        context, perform = lab.context(setting), interrupting(certificates.STAGE.perform, after)
        gate = Gate(Approval.parse("all"), POLICIES["lab"], context.platform.cluster.name)
        stage = stage_run(replace(certificates.STAGE, perform=perform), context, gate)
        with pytest.raises(FluobookError, match="laptop"):
            stage.apply(stage.plan())
        reader = lab.context()
        for node in reader.platform.nodes:
            assert reader.talos.client(node, "os:admin").version().tag
    stage = lab.stage("certificates", setting)
    stage.apply(stage.plan())
    assert stage.verify().ok
    context = lab.context()
    last = context.secrets.bundle()
    assert last.talos.crt != first.talos.crt
    assert not context.secrets.rotation_path.exists()
    assert SecretsBundle.parse(sops.read(context.secrets.path, context.secrets.age_key())) == last
    for node in context.platform.nodes:
        address, old = context.talos.address(node), access.talos_client(first, "os:admin")
        assert probe(address, ca=last.talos.crt, identity=old).mode is Mode.FOREIGN
        assert probe(address, ca=first.talos.crt, identity=access.talos_client(last, "os:admin")).mode is Mode.FOREIGN
    assert "talosconfig" not in [action.object for action in lab.stage("bootstrap-kubernetes").plan().actions]
    lab.mark()
    again = lab.stage("certificates", setting)
    assert again.plan().actions == ()
    assert lab.stage("apply-talos-config").plan().actions == ()
    assert lab.requests(mutating=True) == []
    with pytest.raises(Refused, match="has not come yet"):
        lab.stage("certificates", 'platform.rotate.talos_ca="2099-01-01"').plan()


@pytest.mark.parametrize(
    ("spec", "uses"),
    [
        ({"template": {"spec": {}}}, True),
        ({"template": {"spec": {"automountServiceAccountToken": False}}}, False),
        ({"template": {"spec": {}}, "updateStrategy": {"type": "OnDelete"}}, False),
        ({"template": {"spec": {}}, "paused": True}, False),
    ],
    ids=["token", "no token", "restarted by hand", "paused"],
)
def test_workloads_with_a_token_are_restarted(spec: dict[str, Any], uses: bool) -> None:
    assert authorities.uses_the_api({"kind": "Deployment", "spec": spec}) is uses


def test_what_was_restarted_is_not_restarted_again_and_the_network_is_first() -> None:
    def made(namespace: str, mark: str, kind: str = "Deployment") -> dict[str, Any]:
        marks = {"annotations": {authorities.RESTARTED_FOR: mark}}
        metadata = {"name": mark or "x", "namespace": namespace, **(marks if kind == "Cluster" else {})}
        return {"kind": kind, "metadata": metadata, "spec": {"template": {"metadata": marks}}}

    some = [
        made("a", "old"),
        made("b", "new"),
        made("argocd", ""),
        made("kube-system", "old"),
        made("c", "new", "Cluster"),
    ]
    left = [each["metadata"]["namespace"] for each in authorities.left(some, "new")]
    assert left == ["kube-system", "argocd", "a"]


@pytest.mark.lab
def test_the_authority_of_kubernetes_is_rotated_although_the_run_is_killed_again_and_again(
    labs: Callable[..., Any],
) -> None:
    lab = labs(phase="phase3")
    before = ("host-network", "create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")
    lab.bring_up(*before)
    context = lab.context()
    first, kubeconfig = context.secrets.bundle(), context.secrets.kubeconfig(context.platform)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    setting = f"platform.rotate.kubernetes_ca='{now}'"
    planes, nodes = len(context.platform.control_planes), len(context.platform.nodes)
    for after in (3, nodes + 2, 3, 5, planes + 4, nodes + 1):
        context, perform = lab.context(setting), interrupting(certificates.STAGE.perform, after)
        gate = Gate(Approval.parse("all"), POLICIES["lab"], context.platform.cluster.name)
        stage = stage_run(replace(certificates.STAGE, perform=perform), context, gate)
        with pytest.raises(FluobookError, match="laptop"):
            stage.apply(stage.plan())
        assert lab.context().kube().version()
    stage = lab.stage("certificates", setting)
    stage.apply(stage.plan())
    assert stage.verify().ok
    last = lab.context().secrets.bundle()
    assert last.kubernetes.crt != first.kubernetes.crt
    assert not lab.context().secrets.rotation_path.exists()
    with pytest.raises(FluobookError):
        Kube.from_kubeconfig(kubeconfig).version()
    assert all(check.passed for check in lab.stage("approve-csrs").verify().checks)
    lab.mark()
    again = lab.stage("certificates", setting)
    assert again.plan().actions == ()
    assert lab.stage("apply-talos-config").plan().actions == ()
    assert lab.requests(mutating=True) == []
