"""An upgrade of Kubernetes in the lab: part by part, one node away at a time, interrupted anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook import params
from fluobook.context import POLICIES
from fluobook.errors import FluobookError, OutsideError, Refused, Rejected
from fluobook.kubernetes import removed
from fluobook.notebook import stage_run
from fluobook.stages import upgrade_kubernetes
from fluobook.stages.core.plan import Approval, Gate
from fluobook.stages.upgrade_kubernetes.plan import CONTROL_PLANE
from fluobook.stages.upgrade_kubernetes.work import set_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.lab, pytest.mark.timeout(580)]

BEFORE = ("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")
NOW = params.pins(params.repository_root())["kubernetes"]
MINOR = int(NOW.split(".")[1])
NEW = f"1.{MINOR + 1}.2"
TO = f"platform.versions.kubernetes={NEW}"
NAME = "upgrade-kubernetes"


@pytest.fixture(scope="module")
def lab(shared_labs: Callable[..., Any]) -> Any:
    lab = shared_labs(phase="phase3")
    lab.bring_up("host-network", *BEFORE)
    return lab


@dataclass
class Away:
    """The most API servers, and the most kubelets, that were away at once; whether each kubelet had been drained."""

    servers: int = 0
    kubelets: int = 0
    drained: bool = True


@pytest.fixture
def away(lab: Any) -> Iterator[Away]:
    """What was away whenever a part of a node was replaced."""
    side, counts = lab.environment.kubernetes, Away()
    replaced, fetched = side._replace, side._fetched
    planes = len(lab.chosen.platform.control_planes)

    async def on_fetch(node: Any, image: str) -> None:
        counts.servers = max(counts.servers, planes - len(side._listeners))
        counts.kubelets = max(counts.kubelets, len(lab.chosen.platform.nodes) - len(side._kubelets))
        if "/kubelet:" in image:
            found = side.store.find("v1", "Node", node.hostname)
            counts.drained &= bool(found["spec"].get("unschedulable"))
        await fetched(node, image)

    side._fetched = on_fetch
    yield counts
    side._replace, side._fetched = replaced, fetched


def versions(lab: Any) -> dict[str, set[str]]:
    """By part the versions that run, as Kubernetes reports them."""
    kube = lab.context().kube()
    found = {"kubelet": {node["status"]["nodeInfo"]["kubeletVersion"] for node in kube.list("v1", "Node")}}
    for pod in kube.list("v1", "Pod", "kube-system"):
        if (part := pod["metadata"].get("labels", {}).get("component")) in CONTROL_PLANE:
            found.setdefault(part, set()).add(pod["spec"]["containers"][0]["image"].rpartition(":")[2])
    return found


def configured(lab: Any) -> set[str]:
    """The versions in the machine configurations."""
    folded = [node.config.folded for node in lab.environment.machines.nodes.values()]
    return {config["machine"]["kubelet"]["image"].rpartition(":")[2] for config in folded} | {
        config["cluster"][part]["image"].rpartition(":")[2]
        for config in folded
        for part in ("apiServer", "controllerManager", "scheduler", "proxy")
        if "image" in config["cluster"].get(part, {})
    }


KILLS = (
    ("kube-apiserver talos-cp-2", "midway"),
    ("kube-controller-manager talos-cp-1", "before"),
    ("drain talos-cp-1", "after"),
    ("upgrade talos-cp-1", "midway"),
    ("upgrade talos-worker-1", "after"),
    ("gate at the end", "before"),
)
"""At which actions the run is killed, one after the other; midway is when the node has its configuration."""


def killed(lab: Any, at: str, when: str) -> None:
    """Run the upgrade until the kill."""

    def perform(context: Any, action: Any, report: Any) -> Any:
        if action.id == at and when == "midway":
            set_images(context, context.platform.node(action.data["node"]), action.data["images"])
        result = None if action.id == at and when != "after" else perform_action(context, action, report)
        if action.id == at:
            raise FluobookError("the laptop was closed")
        return result

    perform_action, context = upgrade_kubernetes.STAGE.perform, lab.context(TO)
    gate = Gate(Approval.parse("all"), POLICIES["lab"], context.platform.cluster.name)
    stage = stage_run(replace(upgrade_kubernetes.STAGE, perform=perform), context, gate)
    with pytest.raises(FluobookError, match="the laptop was closed"):
        stage.apply(stage.plan())


def deploy_what_tolerates_everything(lab: Any) -> None:
    """A Deployment of one node that comes to it again as soon as it is evicted, cordoned or not."""
    labels = {"app": "sticky"}
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": "talos-worker-2"},
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "sticky", "image": "registry.k8s.io/pause:3.10"}],
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "sticky", "namespace": "default"}}
    lab.context().kube().create({**body, "spec": {"selector": {"matchLabels": labels}, "template": template}})


def test_a_platform_is_upgraded_part_by_part_and_one_node_is_away_at_a_time(lab: Any, away: Away) -> None:
    """Images that are not there, and an API server that does not come back, stop it; the next run goes on."""
    files = {path: path.read_text() for path in (params.repository_root() / "params").glob("*.yaml")}
    deploy_what_tolerates_everything(lab)
    lab.inject("talos.kubernetes-image-missing")
    stage = lab.stage(NAME, TO)
    with pytest.raises(OutsideError, match=f"kube-apiserver:v{NEW}: not found"):
        stage.apply(stage.plan())
    assert configured(lab) == {f"v{NOW}"}
    lab.inject("kube.api-server-fails")
    for _ in range(2):  # the second run does not wait at a gate for what it has to bring up
        stage = lab.stage(NAME, TO)
        with pytest.raises(Rejected, match="kube-apiserver of talos-cp-1 does not come up: Error: unknown") as refused:
            stage.apply(stage.plan())
    assert refused.value.cause == "wrong in its machine configuration: cluster.apiServer.extraArgs"
    assert versions(lab)["kube-apiserver"] == {f"v{NOW}"}
    left = lab.stage(NAME, TO).plan()
    assert next(action.id for action in left.actions if action.verb == "replace") == "kube-apiserver talos-cp-1"
    lab.inject()
    with pytest.raises(Refused, match="configured for Kubernetes"):
        lab.stage("apply-talos-config", TO).plan()
    for at, when in KILLS:
        killed(lab, at, when)
    stage = lab.stage(NAME, TO)
    stage.apply(stage.plan())
    stage.verify()
    assert versions(lab) == {part: {f"v{NEW}"} for part in (*CONTROL_PLANE, "kubelet")}
    assert configured(lab) == {f"v{NEW}"}
    assert lab.context().kube().version() == f"v{NEW}"
    assert away == Away(servers=1, kubelets=1, drained=True)
    assert {path: path.read_text() for path in files} == files
    lab.mark()
    for name in (NAME, "apply-talos-config"):
        again = lab.stage(name, TO)
        plan = again.plan()
        again.apply(plan)
        again.verify()
        assert plan.actions == ()
    assert lab.requests(mutating=True) == []


OBJECTS = (("apps/v1", "Deployment", "coredns"), ("apps/v1", "DaemonSet", "cilium"))


def test_talos_own_objects_are_brought_up_to_date_and_inline_manifests_are_left_alone(lab: Any) -> None:
    kube = lab.context().kube()
    for api_version, kind, name in OBJECTS:
        body = {"spec": {"template": {"metadata": {"labels": {"changed": "by-hand"}}}}}
        kube.patch(api_version, kind, name, "kube-system", body=body)
    coredns = kube.get(*OBJECTS[0], "kube-system")["spec"]["template"]["spec"]["containers"][0]
    kube.patch(
        *OBJECTS[0],
        "kube-system",
        body={"spec": {"template": {"spec": {"containers": [{**coredns, "image": "coredns:v1.0.0"}]}}}},
    )
    (runs,) = versions(lab)["kubelet"]
    stage = lab.stage(NAME, f"platform.versions.kubernetes={runs.removeprefix('v')}")
    plan = stage.plan()
    assert [action.id for action in plan.actions] == ["manifests", "gate at the end"]
    assert plan.actions[0].detail == "Deployment coredns"
    stage.apply(plan)
    stage.verify()
    assert kube.get(*OBJECTS[0], "kube-system")["spec"]["template"]["spec"]["containers"][0] == coredns
    assert kube.get(*OBJECTS[1], "kube-system")["spec"]["template"]["metadata"]["labels"]["changed"] == "by-hand"


USED = {
    "flags: {kubelet: rotate-server-certificates}": "talos-cp-1, .*: kubelet: the flag rotate-server-certificates was",
    "apis: {v1: [Namespace]}": "in the cluster: Namespace kube-system of v1",
    "apis: {postgresql.cnpg.io/v1: [Cluster]}": (
        r"\n  cluster-gitops/apps/postgresql/cluster/cluster\.yaml:\d+: Cluster of "
    ),
}
"""What a later version could have removed, and how its use is named."""


def test_a_platform_with_one_control_plane_and_an_older_contract_is_upgraded(
    labs: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its only API server is away for a moment, and its configuration has everything in one document."""
    born = {"contract": "1.13", "talos": "1.13.9"}
    lab = labs(versions=born)
    for name in BEFORE:
        stage = lab.stage(name, context=lab.context(versions=born))
        stage.apply(stage.plan())
    wanted = born | {"kubernetes": NEW}
    for rows, expected in USED.items():
        stage = lab.stage(NAME, context=lab.context(versions=wanted))
        with monkeypatch.context() as patched:
            patched.setattr(removed, "_ROWS", {f"1.{MINOR + 1}": yaml.safe_load(rows)})
            with pytest.raises(Refused, match=expected):
                stage.plan()
    stage = lab.stage(NAME, context=lab.context(versions=wanted))
    found = upgrade_kubernetes.STAGE.observe(stage.context)
    assert found.programs["cilium"] == {found.cilium}
    plan = stage.plan()
    lab.inject("kube.api-server-fails")
    with pytest.raises(Rejected, match="kube-apiserver of talos-cp-1 does not come up"):
        stage.apply(plan)
    with pytest.raises(Rejected, match="kube-apiserver of talos-cp-1 does not come up"):
        lab.stage(NAME, context=lab.context(versions=wanted)).plan()
    lab.inject()
    assert "interrupted: the Kubernetes API, while its only server restarts on talos-cp-1" in plan.notes
    stage = lab.stage(NAME, context=lab.context(versions=wanted))
    stage.apply(stage.plan())
    stage.verify()
    assert configured(lab) == {f"v{NEW}"}
    assert lab.stage("apply-talos-config", context=lab.context(versions=wanted)).plan().actions == ()
