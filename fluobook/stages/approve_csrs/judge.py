"""Whether a certificate request is what one of our kubelets would ask for. Pure.

The rules are those of the signer `kubernetes.io/kubelet-serving`, plus ours: the node is declared, it filed the request
itself, and every name and address in it is the node's own.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.params import Node, Platform

SIGNER = "kubernetes.io/kubelet-serving"
PREFIX = "system:node:"
GROUP = "system:nodes"
USAGES = frozenset({"digital signature", "key encipherment", "server auth"})

UNREADABLE = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
"""What reading a request ends in that somebody has made up; it must not keep the others waiting."""


@dataclass(frozen=True)
class Request:
    """A CertificateSigningRequest, as far as it matters here.

    `state` is Pending, Approved, Denied, Failed or Issued; `problems` say why it is not to be approved.
    """

    name: str
    node: str
    requestor: str
    dns: tuple[str, ...]
    ips: tuple[str, ...]
    state: str
    problems: tuple[str, ...] = ()
    uid: str = ""

    @property
    def fits(self) -> bool:
        """Whether it may be approved."""
        return not self.problems

    @property
    def pending(self) -> bool:
        """Whether nobody has decided about it."""
        return self.state == "Pending"


def judge(csr: Mapping[str, Any], platform: Platform) -> Request:
    """Read a request for a kubelet's serving certificate and hold it against the params."""
    spec, name, uid = csr["spec"], csr["metadata"]["name"], csr["metadata"].get("uid", "")
    requestor, state = str(spec.get("username", "")), state_of(csr)
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        alternative = _alternative(request)
    except UNREADABLE as error:
        return Request(name, "", requestor, (), (), state, (f"its request cannot be read: {error}",), uid)
    common = _names(request, NameOID.COMMON_NAME)
    node = common[0].removeprefix(PREFIX) if common else ""
    dns = tuple(alternative.get_values_for_type(x509.DNSName)) if alternative else ()
    ips = tuple(str(ip) for ip in alternative.get_values_for_type(x509.IPAddress)) if alternative else ()
    declared = next((one for one in platform.nodes if one.name == node), None)
    problems = (*_form(spec, request, common, alternative), *_belongs(requestor, node, dns, ips, declared))
    return Request(name, node, requestor, dns, ips, state, problems, uid)


def state_of(csr: Mapping[str, Any]) -> str:
    """What has become of a request."""
    status = csr.get("status") or {}
    conditions = {condition["type"] for condition in status.get("conditions") or ()}
    if status.get("certificate"):
        return "Issued"
    return next((word for word in ("Failed", "Denied", "Approved") if word in conditions), "Pending")


def _form(
    spec: Mapping[str, Any], request: x509.CertificateSigningRequest, common: list[str], alternative: Any
) -> list[str]:
    problems = []
    if spec.get("signerName") != SIGNER:
        problems.append(f"its signer is {spec.get('signerName')}")
    if not set(spec.get("usages") or ()) <= USAGES or "server auth" not in (spec.get("usages") or ()):
        problems.append(f"its usages are {', '.join(spec.get('usages') or ()) or 'none'}")
    if not request.is_signature_valid:
        problems.append("it is not signed with its own key")
    if _names(request, NameOID.ORGANIZATION_NAME) != [GROUP]:
        problems.append(f"its organization is not {GROUP}")
    if len(common) != 1 or not common[0].startswith(PREFIX):
        problems.append(f"its common name is {', '.join(common) or 'missing'}")
    if alternative is None or not (
        alternative.get_values_for_type(x509.DNSName) or alternative.get_values_for_type(x509.IPAddress)
    ):
        problems.append("it has no names or addresses")
    elif not all(isinstance(name, x509.DNSName | x509.IPAddress) for name in alternative):
        problems.append("it asks for more than names and addresses")
    return problems


def _belongs(requestor: str, node: str, dns: tuple[str, ...], ips: tuple[str, ...], declared: Node | None) -> list[str]:
    if declared is None:
        return [f"{node or 'its node'} is not a node of the params"]
    problems = []
    if requestor != PREFIX + node:
        problems.append(f"it was filed by {requestor}, not by the node")
    if foreign := [name for name in dns if name != declared.name]:
        problems.append(f"{', '.join(foreign)} is not a name of {node}")
    if foreign := [ip for ip in ips if ip != str(declared.address)]:
        problems.append(f"{', '.join(foreign)} is not an address of {node}")
    return problems


def _names(request: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in request.subject.get_attributes_for_oid(oid)]


def _alternative(request: x509.CertificateSigningRequest) -> Any:
    try:
        return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
