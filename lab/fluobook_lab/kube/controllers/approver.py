"""kubelet-csr-approver: once its Deployment runs, serving requests that pass its checks are approved, others denied."""

from __future__ import annotations

import base64
import ipaddress
import re
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from fluobook_lab.kube.controllers.certificates import (
    API_VERSION,
    KIND,
    KUBELET_SERVING,
    RESOURCE,
    approve,
    is_pending,
)
from fluobook_lab.kube.controllers.loop import own_key
from fluobook_lab.kube.identity import NODE_PREFIX
from fluobook_lab.kube.objects import is_true, labels_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

LABEL, NAME = "app.kubernetes.io/name", "kubelet-csr-approver"
DEPLOYMENTS = ("apps", "deployments")
LONGEST_SECONDS = 367 * 86400


class CsrApprover:
    """Decides as the real one does, with the settings that stand in its Deployment's environment."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {RESOURCE: own_key, DEPLOYMENTS: self._on_deployment}

    def _on_deployment(self, deployment: Obj) -> list[Key]:
        ours = labels_of(deployment).get(LABEL) == NAME and is_true(deployment, "Available")
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
        condition = {"type": "Denied", "reason": "KubeletServingCertDenied", "message": problem}
        if not problem:
            told = "Automatically approved by kubelet-csr-approver"
            condition = {"type": "Approved", "reason": "Automatically approved", "message": told}
        approve(self._store, csr, {**condition, "status": "True"})
        return None

    def _settings(self) -> dict[str, str] | None:
        """Its environment, None if it does not run."""
        found = self._store.view("apps/v1", "Deployment")
        running = [one for one in found if labels_of(one).get(LABEL) == NAME and is_true(one, "Available")]
        if not running:
            return None
        containers = running[0]["spec"]["template"]["spec"]["containers"]
        return {item["name"]: item.get("value", "") for item in containers[0].get("env") or []}


def _problems(csr: Obj, settings: dict[str, str]) -> Iterator[str]:
    request = x509.load_pem_x509_csr(base64.b64decode(csr["spec"]["request"]))
    user = csr["spec"]["username"]
    names = [str(name.value) for name in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not user.startswith(NODE_PREFIX):
        yield f"CSR username does not start with {NODE_PREFIX}"
    dns, ips = _alternative_names(request)
    if not dns and not ips:
        yield "The x509 Cert Request SAN contains neither an IP address nor a DNS name"
    if names != [user]:
        yield f"CSR username {user} does not match the parsed x509 certificate request commonname"
    if len(dns) > 1:
        yield "The x509 Cert Request contains more than 1 DNS name"
    yield from _name_problems(dns, user.removeprefix(NODE_PREFIX), settings)
    prefixes = [part.strip() for part in settings.get("PROVIDER_IP_PREFIXES", "").split(",") if part.strip()]
    if outside := [ip for ip in ips if not _is_inside(ip, prefixes)]:
        yield f"The SAN IP addresses {outside} are not allowed by the provider IP prefixes"
    longest = int(settings.get("MAX_EXPIRATION_SECONDS") or LONGEST_SECONDS)
    if (csr["spec"].get("expirationSeconds") or 0) > longest:
        yield "CSR spec.expirationSeconds is longer than the maximum allowed"


def _name_problems(dns: list[str], node: str, settings: dict[str, str]) -> Iterator[str]:
    pattern = settings.get("PROVIDER_REGEX") or ".*"
    for name in dns:
        if not name.startswith(node):
            yield f"The DNS name {name} does not start with the node name {node}"
        if not re.fullmatch(pattern, name):
            yield f"The DNS name {name} does not match the provider regex {pattern}"


def _is_inside(ip: str, prefixes: list[str]) -> bool:
    address = ipaddress.ip_address(ip)
    return not prefixes or any(address in ipaddress.ip_network(prefix, strict=False) for prefix in prefixes)


def _alternative_names(request: x509.CertificateSigningRequest) -> tuple[list[str], list[str]]:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    return names.get_values_for_type(x509.DNSName), [str(ip) for ip in names.get_values_for_type(x509.IPAddress)]
