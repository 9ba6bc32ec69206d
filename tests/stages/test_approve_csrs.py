"""Stage 4 among requests of all kinds: our kubelets' are approved, strangers' are named and stay as they are."""

from __future__ import annotations

import base64
import ipaddress
import time
from contextlib import closing

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fluobook import gitops
from fluobook.clients.kube import Kube
from fluobook.errors import CheckFailed, StageMissing
from fluobook.machine.pki import issue
from fluobook.stages.approve_csrs import SIGNER

pytestmark = pytest.mark.lab


def pem(node, *, dns=(), ips=()):
    """A request as a kubelet makes it."""
    subject = [(NameOID.ORGANIZATION_NAME, "system:nodes"), (NameOID.COMMON_NAME, f"system:node:{node}")]
    names = [*map(x509.DNSName, dns), *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips)]
    builder = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(*pair) for pair in subject]))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def file(kube, name, request):
    spec = {
        "request": base64.b64encode(request).decode(),
        "signerName": SIGNER,
        "usages": ["digital signature", "server auth"],
    }
    kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    kube.create({**kind, "metadata": {"name": name}, "spec": spec})


@pytest.fixture
def lab(labs):
    lab = labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes")
    lab.mark()
    return lab


def client(context, name):
    """The kubeconfig of a node's kubelet."""
    subject = {"common_name": f"system:node:{name}", "organizations": ("system:nodes",)}
    pair = issue(context.secrets.bundle().kubernetes, **subject, client=True).to_base64()
    config = context.secrets.kubeconfig(context.platform)
    config["users"][0]["user"] = {"client-certificate-data": pair["crt"], "client-key-data": pair["key"]}
    return config


@pytest.fixture
def as_node(lab):
    """The API as one of our nodes' kubelets sees it."""
    kubes = []

    def make(name):
        kubes.append(Kube.from_kubeconfig(client(lab.context(), name)))
        return kubes[-1]

    yield make
    for kube in kubes:
        kube.close()


def state(kube, name):
    return [
        c["type"]
        for c in kube.get("certificates.k8s.io/v1", "CertificateSigningRequest", name)["status"].get("conditions", [])
    ]


def test_foreign_requests_are_named_and_stay_pending_while_ours_are_approved(lab, as_node):
    admin, node = lab.context().kube(), as_node("talos-worker-1")
    file(node, "evil-name", pem("talos-worker-1", dns=["talos-worker-1", "kubernetes.default"], ips=["10.10.0.20"]))
    file(node, "evil-address", pem("talos-worker-1", dns=["talos-worker-1"], ips=["10.10.0.10"]))
    file(admin, "wrong-requestor", pem("talos-worker-2", dns=["talos-worker-2"], ips=["10.10.0.21"]))
    file(admin, "unknown-node", pem("mallory", dns=["mallory"], ips=["10.10.0.66"]))
    stage = lab.stage("approve-csrs")
    plan = stage.plan()
    text = plan.table().text()
    for sign in (
        "kubernetes.default is not a name of",
        "10.10.0.10 is not an address of",
        "was filed by",
        "mallory is not a node",
    ):
        assert sign in text
    stage.apply(plan)
    checks = stage.verify()
    assert checks.ok
    assert "left alone, for mallory" in str(checks)
    strangers = ("evil-name", "evil-address", "wrong-requestor", "unknown-node")
    assert {name: state(admin, name) for name in strangers} == {name: [] for name in strangers}


def test_a_request_that_a_kubelet_files_again_while_its_first_is_approved_does_not_wait(lab, as_node, monkeypatch):
    node, approve = as_node("talos-worker-1"), Kube.approve_csr
    again = [pem("talos-worker-1", dns=["talos-worker-1"], ips=["10.10.0.20"])]

    def approved(self, name, **rest):
        if again and rest["message"].endswith("talos-worker-1"):
            file(node, "again", again.pop())
        return approve(self, name, **rest)

    monkeypatch.setattr(Kube, "approve_csr", approved)
    lab.bring_up("approve-csrs")
    assert state(lab.context().kube(), "again") == ["Approved"]
    assert lab.stage("approve-csrs").plan().actions == ()


def test_a_second_run_only_reads_although_strangers_wait(lab):
    lab.bring_up("approve-csrs")
    file(lab.context().kube(), "unknown-node", pem("mallory", dns=["mallory"]))
    lab.mark()
    lab.bring_up("approve-csrs")
    assert lab.requests(mutating=True) == []


def test_a_stranger_that_somebody_approved_fails_the_check_and_is_named(lab):
    lab.bring_up("approve-csrs")
    admin = lab.context().kube()
    file(admin, "unknown-node", pem("mallory", dns=["mallory"]))
    uid = admin.get("certificates.k8s.io/v1", "CertificateSigningRequest", "unknown-node")["metadata"]["uid"]
    admin.approve_csr("unknown-node", uid=uid, reason="Oops", message="by mistake")
    stage = lab.stage("approve-csrs")
    with pytest.raises(CheckFailed, match="approved, for mallory"):
        stage.verify()


def test_without_a_cluster_the_missing_stage_is_named(labs):
    lab = labs()
    stage = lab.stage("approve-csrs")
    with pytest.raises(StageMissing, match="is blocked: run bootstrap-kubernetes first"):
        stage.apply(stage.plan())
    assert lab.requests(mutating=True) == []


def approver(regex):
    """The Deployment that Argo CD brings, as far as it decides."""
    labels = {"app.kubernetes.io/name": "kubelet-csr-approver"}
    container = {
        "name": "approver",
        "image": "approver:1",
        "env": [{"name": "PROVIDER_REGEX", "value": regex}, {"name": "BYPASS_DNS_RESOLUTION", "value": "true"}],
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kubelet-csr-approver", "namespace": "kube-system", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def until(question):
    end = time.monotonic() + 60
    while not question():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def test_a_new_node_that_the_platforms_own_approver_does_not_know_yet_is_left_to_it(lab):
    admin = lab.context().kube()
    admin.apply(approver("^talos-(cp-1|worker-1)$"))
    stage = lab.stage("approve-csrs")
    until(lambda: "left to kubelet-csr-approver: talos-worker-2" in stage.plan().table().text())
    plans = []  # the others get theirs from it; a kubelet may ask again, so the empty plan is the one to apply
    until(lambda: plans.append(stage.plan()) or not plans[-1].actions)
    lab.mark()
    stage.apply(plans[-1])
    assert "every kubelet but those left to kubelet-csr-approver (talos-worker-2)" in str(stage.verify())
    assert lab.requests(mutating=True) == []
    admin.apply(approver("^talos-.*$"))
    until(lambda: admin.kubelet_answers("talos-worker-2"))
    lab.bring_up("approve-csrs")


def test_the_platforms_own_approver_leaves_a_control_planes_address_and_the_vip_to_stage_4(labs):
    lab = labs(phase="phase3")
    lab.bring_up("host-network", "create-vms", "apply-talos-config", "bootstrap-kubernetes", "approve-csrs")
    context = lab.context()
    platform, admin = context.platform, context.kube()
    tree = gitops.for_phase(platform, gitops.read(context.root, platform.gitops.path))
    for obj in gitops.render_chart(platform, gitops.chart_source(tree, "kubelet-csr-approver")):
        obj["metadata"].setdefault("namespace", "kube-system")
        admin.apply(obj)
    worker = next(node for node in platform.nodes if node.role == "worker")
    first = platform.control_planes[0]
    requests = {
        "evil-vip": pem(worker.name, dns=[worker.name], ips=[str(platform.network.vip)]),
        "evil-control-plane": pem(worker.name, dns=[worker.name], ips=[str(first.address)]),
        "evil-without-a-name": pem(worker.name, ips=[str(first.address)]),
        "evil-second-address": pem(worker.name, ips=[str(worker.address), str(first.address)]),
        "evil-name": pem(worker.name, dns=[first.name]),
        "renewal": pem(worker.name, dns=[worker.name], ips=[str(worker.address)]),
    }
    as_worker, as_first = (
        Kube.from_kubeconfig(client(context, worker.name)),
        Kube.from_kubeconfig(client(context, first.name)),
    )
    with closing(as_worker), closing(as_first):
        for name, request in requests.items():
            file(as_worker, name, request)
        file(as_first, "renewal-of-control-plane", pem(first.name, dns=[first.name], ips=[str(first.address)]))
    until(lambda: state(admin, "renewal") == ["Approved"])
    evil = [name for name in requests if name.startswith("evil-")]
    assert {name: state(admin, name) for name in evil} == {name: [] for name in evil}
    assert state(admin, "renewal-of-control-plane") == []
    lab.bring_up("approve-csrs")
    assert state(admin, "renewal-of-control-plane") == ["Approved"]
    assert {name: state(admin, name) for name in evil} == {name: [] for name in evil}
