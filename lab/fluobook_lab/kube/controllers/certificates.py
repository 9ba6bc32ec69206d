"""CertificateSigningRequests: signing what was approved, and the platform's own approver of kubelets' requests."""

from __future__ import annotations

import base64
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from fluobook.errors import FluobookError
from fluobook.kubernetes.kubelet_certificates import Approver
from fluobook.machine.pki import KeyPair, certify
from fluobook_lab.kube.access import BOOTSTRAPPERS, NODE_PREFIX, NODES
from fluobook_lab.kube.controllers.loop import is_named, own_key, running
from fluobook_lab.kube.objects import is_true, name_of, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store


API_VERSION, KIND = "certificates.k8s.io/v1", "CertificateSigningRequest"
RESOURCE = ("certificates.k8s.io", "certificatesigningrequests")
CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"

DAYS = 365.0
_USAGES = {
    KUBELET_CLIENT: ("client auth", {"client auth", "digital signature", "key encipherment"}),
    KUBELET_SERVING: ("server auth", {"digital signature", "key encipherment", "server auth"}),
    CLIENT: ("client auth", {"client auth", "digital signature", "key encipherment"}),
}


class CertificateSigner:
    """Approves kubelets' client requests and signs what is approved.

    Args:
        store: the cluster.
        authority: the cluster's CA.
    """

    def __init__(self, store: Store, authority: KeyPair) -> None:
        self._store = store
        self.authority = authority
        self.sources: Sources = {RESOURCE: own_key}

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        csr = self._store.find(API_VERSION, KIND, key[1])
        if csr is None or csr["spec"]["signerName"] not in _USAGES or _is_final(csr):
            return None
        if problem := _refusal(csr):
            early = problem.endswith("is required") or is_true(csr, "Approved")
            if early:
                self._fail(csr, problem)
            return None
        if is_true(csr, "Approved"):
            self._sign(csr)
        elif csr["spec"]["signerName"] == KUBELET_CLIENT and (words := _auto_approval(csr)):
            condition = {"type": "Approved", "status": "True", "reason": "AutoApproved", "message": words}
            approve(self._store, csr, condition)
        return None

    def _fail(self, csr: Obj, problem: str) -> None:
        condition = {"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": problem}
        status = csr.get("status") or {}
        self._store.set_status(csr, {**status, "conditions": [*(status.get("conditions") or []), _stamped(condition)]})

    def _sign(self, csr: Obj) -> None:
        usages = set(csr["spec"].get("usages") or ())
        days = (csr["spec"].get("expirationSeconds") or DAYS * 86400) / 86400
        try:
            signed = sign_request(
                self.authority,
                base64.b64decode(csr["spec"]["request"]).decode(),
                days=min(max(days, 600 / 86400), DAYS),
                server="server auth" in usages,
                client="client auth" in usages,
                key_encipherment="key encipherment" in usages,
            )
        except FluobookError as error:
            self._fail(csr, error.message)
            return
        certificate = base64.b64encode(signed.encode()).decode()
        self._store.set_status(csr, {**csr["status"], "certificate": certificate})


def sign_request(authority: KeyPair, csr_pem: str, **options: Any) -> str:
    """Sign a request's subject, public key and alternative names; the signer chooses the usages, as in `certify`.

    Raises:
        FluobookError: the request cannot be read, or its own signature is wrong.
    """
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
    except ValueError as error:
        raise FluobookError(f"the certificate request cannot be read: {error}") from None
    if not request.is_signature_valid:
        raise FluobookError("the certificate request is not signed by its own key")
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = None
    return certify(authority, request.subject, request.public_key(), names, **options)


def approve(store: Store, csr: Obj, condition: Obj) -> None:
    """Add a condition of type Approved or Denied; `condition` has type, status, reason and message."""
    fresh = store.get(API_VERSION, KIND, name_of(csr))
    status = fresh.get("status") or {}
    conditions = [*(status.get("conditions") or []), _stamped(condition)]
    store.set_status(fresh, {**status, "conditions": conditions})


def has_serving_certificate(store: Store, node: str) -> bool:
    """Whether a kubelet has a serving certificate of the cluster's."""
    requests = store.view(API_VERSION, KIND)
    return any(
        request["spec"]["signerName"] == KUBELET_SERVING
        and request["spec"]["username"] == NODE_PREFIX + node
        and is_issued_by((request.get("status") or {}).get("certificate", ""), store.authorities)
        for request in requests
    )


@lru_cache(maxsize=1024)
def is_issued_by(certificate: str, authorities: tuple[str, ...]) -> bool:
    """Whether a certificate, as a request has it, is one of those authorities'; without any, whether there is one."""
    if not certificate or not authorities:
        return bool(certificate)
    crt = x509.load_pem_x509_certificate(base64.b64decode(certificate))
    for authority in authorities:
        with suppress(InvalidSignature, TypeError, ValueError):
            crt.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.encode()))
            return True
    return False


def is_pending(csr: Obj) -> bool:
    """Whether nobody has decided about it."""
    return not (csr.get("status") or {}).get("conditions")


def _stamped(condition: Obj) -> Obj:
    return {**condition, "lastUpdateTime": timestamp(), "lastTransitionTime": timestamp()}


def _is_final(csr: Obj) -> bool:
    status = csr.get("status") or {}
    return bool(status.get("certificate")) or is_true(csr, "Denied") or is_true(csr, "Failed")


def _auto_approval(csr: Obj) -> str:
    groups, user = set(csr["spec"].get("groups") or ()), csr["spec"]["username"]
    if BOOTSTRAPPERS in groups:
        return "Auto approving kubelet client certificate after SubjectAccessReview."
    names = _values(_request(csr), NameOID.COMMON_NAME)
    if NODES in groups and names == [user]:
        return "Auto approving self kubelet client certificate after SubjectAccessReview."
    return ""


def _refusal(csr: Obj) -> str:
    """Why the signer will not sign, "" if it will."""
    return "" if csr["spec"]["signerName"] == CLIENT else next(_refusals(csr), "")


def _refusals(csr: Obj) -> Iterator[str]:
    request, signer = _request(csr), csr["spec"]["signerName"]
    if _values(request, NameOID.ORGANIZATION_NAME) != [NODES]:
        yield "subject organization is not system:nodes"
    if signer == KUBELET_SERVING:
        yield from _name_refusals(request)
    elif kinds := _alternative_kinds(request):
        yield f"{kinds[0]} subjectAltNames are not allowed"
    if not all(name.startswith(NODE_PREFIX) for name in _values(request, NameOID.COMMON_NAME) or [""]):
        yield "subject common name does not begin with system:node:"
    needed, known = _USAGES[signer]
    usages = set(csr["spec"].get("usages") or ())
    if needed not in usages or not usages <= known:
        yield f"usages did not match {sorted(known)}".replace("'", "").replace(",", "")


def _name_refusals(request: x509.CertificateSigningRequest) -> Iterator[str]:
    kinds = _alternative_kinds(request)
    if not {"DNS", "IP"} & set(kinds):
        yield "DNS or IP subjectAltName is required"
    yield from (f"{kind} subjectAltNames are not allowed" for kind in kinds if kind not in ("DNS", "IP"))


def _alternative_kinds(request: x509.CertificateSigningRequest) -> list[str]:
    kinds: dict[type, str] = {x509.DNSName: "DNS", x509.IPAddress: "IP", x509.RFC822Name: "Email"}
    return [kinds.get(type(name), "URI") for name in _alternative_names(request)]


def _request(csr: Obj) -> x509.CertificateSigningRequest:
    return x509.load_pem_x509_csr(base64.b64decode(csr["spec"]["request"]))


def _values(request: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in request.subject.get_attributes_for_oid(oid)]


NAME = "kubelet-csr-approver"
DEPLOYMENTS = ("apps", "deployments")


class CsrApprover:
    """Decides as the real one does, with the settings that stand in its Deployment's environment."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {RESOURCE: own_key, DEPLOYMENTS: self._on_deployment}

    def _on_deployment(self, deployment: Obj) -> list[Key]:
        ours = is_named(deployment, NAME) and is_true(deployment, "Available")
        return [key for key, _ in self._store.storage.scan(RESOURCE)] if ours else []

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        csr = self._store.find(API_VERSION, KIND, key[1])
        if csr is None or csr["spec"]["signerName"] != KUBELET_SERVING or not is_pending(csr):
            return None
        settings = self._settings()
        if settings is None:
            return None
        problem = next(_problems(csr, settings), "")
        if problem and not settings.denies:
            return None
        message = f"CSR not complying with kubelet-csr-approver validation process. Reason: {problem}"
        condition = {"type": "Denied", "reason": "kubelet-serving cert denied", "message": message}
        if not problem:
            message = "CSR complied with kubelet-csr-approver validation process"
            condition = {"type": "Approved", "reason": "kubelet-serving cert validated", "message": message}
        approve(self._store, csr, {**condition, "status": "True"})
        return None

    def _settings(self) -> Approver | None:
        """Its settings, None if it does not run."""
        deployments = running(self._store, NAME)
        if not deployments:
            return None
        containers = deployments[0]["spec"]["template"]["spec"]["containers"]
        return Approver.from_environment({e["name"]: e.get("value", "") for e in containers[0].get("env") or []})


def _problems(csr: Obj, settings: Approver) -> Iterator[str]:
    request, user = _request(csr), csr["spec"]["username"]
    if not user.startswith(NODE_PREFIX):
        yield "CSR Spec.Username is not prefixed with system:node:"
    if _values(request, NameOID.COMMON_NAME) != [user]:
        yield "CSR username does not match the parsed x509 certificate request commonname"
    names = _alternative_names(request)
    dns = [name.value for name in names if isinstance(name, x509.DNSName)]
    ips = [str(name.value) for name in names if isinstance(name, x509.IPAddress)]
    yield from settings.problems(user.removeprefix(NODE_PREFIX), dns, ips, csr["spec"].get("expirationSeconds") or 0)


def _alternative_names(request: x509.CertificateSigningRequest) -> Iterable[x509.GeneralName]:
    try:
        return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
