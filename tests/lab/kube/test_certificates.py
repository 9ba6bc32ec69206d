"""The CSR signer and the approver: what they refuse, in whose words, and what they let pass."""

from __future__ import annotations

import base64
import ipaddress
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fluobook_lab.kube.access import ADMIN, User, Write
from fluobook_lab.kube.errors import ApiError

from fluobook.machine.pki import certificate

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.lab

SERVING, CLIENT = "kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET = User("system:node:worker-1", frozenset({"system:nodes", "system:authenticated"}))
TOKEN = User("system:bootstrap:abcdef", frozenset({"system:bootstrappers", "system:authenticated"}))
CSR = ("certificates.k8s.io/v1", "CertificateSigningRequest")


def request(
    common_name: str = "system:node:worker-1",
    organizations: tuple[str, ...] = ("system:nodes",),
    dns: tuple[str, ...] = ("worker-1",),
    ips: tuple[str, ...] = ("10.10.0.20",),
    email: str = "",
) -> str:
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization) for organization in organizations]
    names += [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    alternative: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
    alternative += [x509.IPAddress(ipaddress.ip_address(address)) for address in ips]
    alternative += [x509.RFC822Name(email)] if email else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()


def file(rig: Any, pem: str, *, signer: str = SERVING, usages: tuple[str, ...] = (), user: User = KUBELET) -> str:
    default = ("digital signature", "server auth" if signer == SERVING else "client auth")
    spec = {"request": pem, "signerName": signer, "usages": list(usages or default)}
    csr = {"apiVersion": CSR[0], "kind": CSR[1], "metadata": {"generateName": "csr-"}, "spec": spec}
    return rig.store("create", csr, Write(user=user))["metadata"]["name"]


def outcome(rig: Any, name: str) -> tuple[list[str], str, bytes]:
    """The types of its conditions, the last message, and the certificate; once there is anything to tell."""

    def decision() -> Any:
        status = rig.store("get", *CSR, name).get("status") or {}
        conditions = status.get("conditions") or []
        done = status.get("certificate") or any(c["type"] in ("Failed", "Denied") for c in conditions)
        return (conditions, status.get("certificate", "")) if done else None

    conditions, pem = rig.until(decision)
    return [c["type"] for c in conditions], conditions[-1]["message"], base64.b64decode(pem)


def approve(rig: Any, name: str) -> None:
    uid = rig.kube.get("certificates.k8s.io/v1", "CertificateSigningRequest", name)["metadata"]["uid"]
    rig.kube.approve_csr(name, uid=uid, reason="Test", message="approved by a test")


def test_an_approved_serving_request_is_signed_by_the_cluster(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes()
    name = file(rig, request())
    assert rig.store("get", *CSR, name)["status"] == {}
    approve(rig, name)
    kinds, _, pem = outcome(rig, name)
    assert kinds == ["Approved"]
    signed = certificate(pem.decode())
    signed.verify_directly_issued_by(certificate(rig.authority.crt))
    assert signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value[0] == ExtendedKeyUsageOID.SERVER_AUTH
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["worker-1"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.10.0.20"]


def test_the_signer_does_not_look_at_names_nor_at_who_filed(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes()
    for name in (
        file(rig, request(dns=("evil.example.com",), ips=("8.8.8.8",))),
        file(rig, request(), user=ADMIN),
    ):
        approve(rig, name)
        assert outcome(rig, name)[2]


@pytest.mark.parametrize(
    ("given", "usages", "problem"),
    [
        ({"organizations": ()}, (), "subject organization is not system:nodes"),
        ({"organizations": ("system:nodes", "other")}, (), "subject organization is not system:nodes"),
        ({"email": "a@example.org"}, (), "Email subjectAltNames are not allowed"),
        (
            {},
            ("digital signature", "server auth", "client auth"),
            "usages did not match [digital signature key encipherment server auth]",
        ),
    ],
)
def test_the_signer_fails_what_it_will_not_sign(
    kubernetes: Callable[..., Any], given: dict[str, Any], usages: tuple[str, ...], problem: str
) -> None:
    rig = kubernetes()
    name = file(rig, request(**given), usages=usages)
    approve(rig, name)
    kinds, message, pem = outcome(rig, name)
    assert (kinds, message, pem) == (["Approved", "Failed"], problem, b"")


def test_a_request_without_names_fails_before_anybody_approves(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes()
    kinds, message, _ = outcome(rig, file(rig, request(dns=(), ips=())))
    assert (kinds, message) == (["Failed"], "DNS or IP subjectAltName is required")


def test_key_encipherment_is_welcome(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes()
    name = file(rig, request(), usages=("digital signature", "key encipherment", "server auth"))
    approve(rig, name)
    assert outcome(rig, name)[2]


def test_a_kubelet_can_ask_for_itself_alone(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes()
    with pytest.raises(ApiError, match="can only create a node CSR with CN=system:node:worker-1"):
        file(rig, request("system:node:cp-1"))


def test_what_is_no_request_is_refused(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes()
    with pytest.raises(ApiError, match="PEM block type must be CERTIFICATE REQUEST"):
        file(rig, base64.b64encode(b"nonsense").decode())


def test_a_bootstrap_tokens_client_request_is_approved_by_itself(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes()
    kinds, message, pem = outcome(rig, file(rig, request(dns=(), ips=()), signer=CLIENT, user=TOKEN))
    assert kinds == ["Approved"]
    assert message == "Auto approving kubelet client certificate after SubjectAccessReview."
    assert certificate(pem.decode()).extensions.get_extension_for_class(x509.ExtendedKeyUsage)


def test_a_kubelet_renews_its_own_client_certificate(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes()
    _, message, _ = outcome(rig, file(rig, request(dns=(), ips=()), signer=CLIENT))
    assert message.startswith("Auto approving self kubelet client certificate")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"common_name": "worker-1"}, "subject common name does not begin with system:node:"),
        ({"dns": ("worker-1",)}, "DNS subjectAltNames are not allowed"),
        ({"organizations": ("system:masters",)}, "subject organization is not system:nodes"),
    ],
)
def test_client_requests_that_the_signer_fails(kubernetes: Callable[..., Any], given: Any, problem: str) -> None:
    rig = kubernetes()
    name = file(rig, request(**{"dns": (), "ips": (), **given}), signer=CLIENT, user=TOKEN)
    assert rig.store("get", *CSR, name)["status"] == {}
    approve(rig, name)
    assert outcome(rig, name)[1] == problem


def test_a_request_cannot_be_approved_and_denied(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes(controllers=False)
    csr = rig.store("get", *CSR, file(rig, request()))
    csr["status"]["conditions"] = [{"type": kind, "status": "True"} for kind in ("Approved", "Denied")]
    with pytest.raises(ApiError, match="mutually exclusive"):
        rig.store("update", csr, Write(subresource="approval"))


@pytest.fixture
def approver(make_workload: Any, cilium: dict[str, Any]) -> list[dict[str, Any]]:
    """The CNI, so that a node is ready, and the approver's Deployment."""
    made = make_workload("Deployment", "kubelet-csr-approver", "kube-system", hostNetwork=True)
    env = {
        "PROVIDER_REGEX": "^(cp|worker)-[0-9]+$",
        "PROVIDER_IP_PREFIXES": "10.10.0.0/24",
        "BYPASS_DNS_RESOLUTION": "true",
    }
    listed = [{"name": name, "value": value} for name, value in env.items()]
    made["spec"]["template"]["spec"]["containers"][0]["env"] = listed
    return [cilium, made]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "complied with kubelet-csr-approver validation process"),
        ({"ips": ("8.8.8.8",)}, "8.8.8.8, is not part of the allowed IP Prefixes"),
        ({"dns": ("worker-1", "worker-1b")}, "more DNS names than allowed"),
        ({"dns": ("evil.example.com",)}, "not prefixed by the node name"),
    ],
)
def test_the_approver_decides_once_its_deployment_runs(
    kubernetes: Callable[..., Any], nodes: Any, approver: list[Any], given: Any, problem: str
) -> None:
    rig = kubernetes(nodes=nodes)
    name = file(rig, request(**given))
    rig.kube.apply(approver[0])
    assert rig.store("get", *CSR, name)["status"] == {}
    rig.kube.apply(approver[1])
    assert problem in outcome(rig, name)[1]


def test_an_intruder_asks_too_when_the_fault_is_played(kubernetes: Callable[..., Any]) -> None:
    rig = kubernetes("kube.foreign-csr")
    users = [csr["spec"]["username"] for csr in rig.kube.list(*CSR)]
    assert users == ["system:node:intruder"]
