"""The tables and checks of stage 9 against a lab, before and after there is a cluster."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fluobook_lab.kube.subresources import Backend

from fluobook import params
from fluobook.context import POLICIES
from fluobook.errors import StageMissing
from fluobook.notebook import Runbook
from fluobook.stages import observe
from fluobook.stages.core.plan import Approval, Gate
from fluobook.stages.observe.watch import receivers_check

pytestmark = pytest.mark.lab
STAGES = ("create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")


@pytest.fixture(scope="module")
def lab(shared_labs):
    lab = shared_labs()
    lab.bring_up(*STAGES)
    return lab


def open_on(context):
    """A runbook on a context that there is already."""
    chosen = params.load(context.phase, root=context.root)
    runbook = Runbook(chosen, context.root, "lab", Gate(Approval(), POLICIES["lab"], context.platform.cluster.name))
    runbook.context = context
    return runbook


def test_before_there_is_a_cluster_the_missing_stage_is_named(labs):
    lab = labs()
    runbook = open_on(lab.context())
    lab.mark()
    for show in (runbook.nodes, runbook.csrs, runbook.applications, runbook.flows, runbook.stage("observe").verify):
        with pytest.raises(StageMissing) as raised:
            show()
        assert "bootstrap-kubernetes" in raised.value.remedy
    assert lab.requests(mutating=True) == []


def test_nodes_and_requests_are_read_once(lab):
    runbook = open_on(lab.context())
    shown = f"{runbook.nodes()}\n{runbook.csrs()}"
    assert shown.count("3 of 3 Ready") == 1
    assert shown.count("matches the params") == 3
    assert "csr-" not in shown


def test_without_argo_cd_its_stage_is_named(lab):
    with pytest.raises(StageMissing) as raised:
        open_on(lab.context()).applications()
    assert "install-argocd" in raised.value.remedy


def test_flows_are_summarized_and_their_paths_are_written_to_the_journal(lab):
    context = lab.context()
    assert "it knows the nodes  3 of 3" in str(open_on(context).flows())
    (event,) = [event for event in context.journal.events if event["event"] == "flows"]
    verdict, _, destination, port, number = event["paths"][0]
    assert verdict in {"FORWARDED", "DROPPED"}
    assert destination.startswith("kube-system/")
    assert port.endswith("/TCP")
    assert number >= 1


def test_an_unmapped_relay_is_reached_through_the_kubernetes_api(lab):
    name, labels = "hubble-relay.kube-system:80", {"k8s-app": "hubble-relay"}
    there = Backend("kube-system", labels, 4245, ("127.0.0.1", lab.environment.relay.port))
    lab.background.call(lab.environment.kubernetes.cluster.api.publish, there)
    assert "flows are seen      yes" in str(open_on(lab.context(endpoints={name: name})).flows())


def test_the_checks_show_what_is_healthy_and_what_is_missing(lab):
    results = {check.name: check.passed for check in observe.STAGE.verify(lab.context(), None)}
    assert results == {
        "every node is Ready": True,
        "no declared node waits for a certificate": True,
        "every Application is Synced and Healthy": False,
        "the Hubble relay has flows of every node": True,
        "kubeconfig and talosconfig are valid for more than 30 days": True,
        "certificates are issued": True,
        "alerts reach somebody": False,
    }


def test_receivers_are_read_from_the_deployed_application():
    app = {"spec": {"source": {"helm": {"valuesObject": {"alertmanager": {"config": {"receivers": []}}}}}}}
    receivers = app["spec"]["source"]["helm"]["valuesObject"]["alertmanager"]["config"]["receivers"]
    kube = SimpleNamespace(list=lambda *_: [{"spec": {"source": {}}}, app])
    assert receivers_check(kube).result == "no receiver"
    receivers += [{"name": "nobody"}, {"name": "ops", "email_configs": [{}]}]
    check = receivers_check(kube)
    assert (check.passed, check.result, check.advisory) == (True, "ops", True)


def test_watching_changes_nothing(lab):
    lab.mark()
    runbook = open_on(lab.context())
    runbook.nodes()
    runbook.csrs()
    runbook.flows()
    assert lab.requests(mutating=True) == []
