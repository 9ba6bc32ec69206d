"""Stage 4, approve-csrs: kubelets' serving certificates; each request is compared with the node's params.

The signer in Kubernetes checks neither the names nor the addresses in a request, nor who filed it; only the approver
protects. A request that does not match is named and left alone: it is never approved, and never denied either, since a
denial could affect what another controller is about to approve. The rules are those of the signer
`kubernetes.io/kubelet-serving`, and: the node is declared, it filed the request itself, and every name and address in
it is the node's own.

"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from fluobook.errors import FluobookError, Unreachable
from fluobook.stages.core.check import Check
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluobook.context import RunContext
    from fluobook.params import Node, Platform
    from fluobook.stages.core.executor import Reporter


SIGNER = "kubernetes.io/kubelet-serving"
PREFIX = "system:node:"
GROUP = "system:nodes"
USAGES = frozenset({"digital signature", "key encipherment", "server auth"})

UNREADABLE = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
"""Errors of reading a malformed request; it must not block the others."""


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
    def matches(self) -> bool:
        """Whether it may be approved."""
        return not self.problems

    @property
    def pending(self) -> bool:
        """Whether it is neither approved nor denied."""
        return self.state == "Pending"


def evaluate(csr: Mapping[str, Any], platform: Platform) -> Request:
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
    declared = next((declared for declared in platform.nodes if declared.name == node), None)
    problems = (*_form(spec, request, common, alternative), *_belongs(requestor, node, dns, ips, declared))
    return Request(name, node, requestor, dns, ips, state, problems, uid)


def state_of(csr: Mapping[str, Any]) -> str:
    """What has become of a request."""
    status = csr.get("status") or {}
    conditions = {condition["type"] for condition in status.get("conditions") or ()}
    if status.get("certificate"):
        return "Issued"
    return next((state for state in ("Failed", "Denied", "Approved") if state in conditions), "Pending")


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


NAME = "approve-csrs"
APPROVER = "app.kubernetes.io/name=kubelet-csr-approver"
API, KIND = "certificates.k8s.io/v1", "CertificateSigningRequest"


@dataclass(frozen=True)
class Observation:
    """The state of the certificate requests.

    Args:
        reachable: whether the Kubernetes API answers.
        requests: every request for a kubelet's serving certificate.
        serving: nodes whose kubelet the API server reaches, with a certificate it accepts.
        denied: nodes that the platform's own approver denies their certificate: it learns of a new node in stage
            root-application, and denies at once until then; their kubelets ask again by themselves.
    """

    reachable: bool
    requests: Sequence[Request] = field(default_factory=tuple)
    serving: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def pending(self, node: str) -> list[Request]:
        """The pending requests of a node that match the params."""
        return [r for r in self.requests if r.pending and r.matches and r.node == node]

    @property
    def foreign(self) -> list[Request]:
        """The pending requests that do not match the params."""
        return [r for r in self.requests if r.pending and not r.matches]


def observe(context: RunContext) -> Observation:
    """Read the requests, and ask every kubelet through the API server."""
    nodes = context.platform.nodes
    if not context.secrets.has_bundle():
        return Observation(reachable=False)
    try:
        requests = requests_of(context)
        answers = in_parallel(lambda node: context.kube().kubelet_answers(node.name), nodes)
        serving = frozenset(node.name for node, ok in zip(nodes, answers, strict=True) if ok)
        denied = frozenset(
            node.name for node in nodes if node.name not in serving and _is_denied(context, node, requests)
        )
    except Unreachable:
        return Observation(reachable=False)
    return Observation(True, requests, serving, denied)  # noqa: FBT003 (a field, by position as the rest)


def _is_denied(context: RunContext, node: Node, requests: Sequence[Request]) -> bool:
    """Whether a request of the node matches the params and was denied by the approver that Argo CD has brought."""
    fitting = [request for request in requests if request.matches and request.node == node.name]
    if any(request.pending for request in fitting) or "Denied" not in [request.state for request in fitting]:
        return False
    return bool(context.kube().list("apps/v1", "Deployment", labels=APPROVER))


def requests_of(context: RunContext) -> list[Request]:
    """Every request for a kubelet's serving certificate, each evaluated."""
    csrs = context.kube().list(API, KIND, fields=f"spec.signerName={SIGNER}")
    return [evaluate(csr, context.platform) for csr in sorted(csrs, key=lambda csr: csr["metadata"]["name"])]


def plan(platform: Platform, observation: Observation) -> Plan:
    """One action for each node whose kubelet has no certificate yet, or asks for one."""
    settled = observation.serving | observation.denied
    todo = [node for node in platform.nodes if node.name not in settled or observation.pending(node.name)]
    actions = tuple(_approve(node, observation) for node in todo)
    notes = tuple(
        sorted({f"left alone, for {r.node or 'nobody'}: {'; '.join(r.problems)}" for r in observation.foreign})
    )
    notes += tuple(f"left to kubelet-csr-approver: {name}; {_LEARNS}" for name in sorted(observation.denied))
    waits = "" if observation.reachable else "bootstrap-kubernetes"
    return Plan(NAME, actions, len(platform.nodes) - len(actions), platform.digest_data(), waits, notes)


_LEARNS = "it denies new nodes until stage root-application has updated it; then they get their certificates"


def _approve(node: Node, observation: Observation) -> Action:
    reason = (
        "asks for its certificate" if observation.pending(node.name) else "has no certificate and has not asked yet"
    )
    data = {"node": node.name, "dns": [node.name], "ips": [str(node.address)]}
    return Action(
        f"approve {node.name}",
        "approve",
        f"certificate of {node.name}",
        f"{node.name}, {node.address}",
        reason,
        system="kubernetes",
        data=data,
    )


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Approve a node's request once it exists, and wait until its kubelet serves with the certificate."""
    node = action.data["node"]
    names = context.wait_until("csr", f"{node} asks for its certificate", lambda: _decide(context, node, report))
    if not names and not context.kube().kubelet_answers(node):
        return {"left": f"to kubelet-csr-approver; {_LEARNS}"}
    report("waits for the certificate")
    context.wait_until(
        "csr", f"the kubelet of {node} has its certificate", lambda: context.kube().kubelet_answers(node) or None
    )
    return {"approved": names}


def _decide(context: RunContext, node: str, report: Reporter) -> list[str]:
    """Evaluate again at the moment of approval: a request may have changed since the plan."""
    requests = requests_of(context)
    if _is_denied(context, context.platform.node(node), requests):
        return []
    mine = [r for r in requests if r.pending and r.matches and r.node == node]
    for request in mine:
        message = f"fits the params of {node}"
        approved = context.kube().approve_csr(request.name, uid=request.uid, reason="FluobookApproved", message=message)
        report.evidence(csr=request.name, resource_version=approved["metadata"]["resourceVersion"])
    if not mine and not context.kube().kubelet_answers(node):
        raise FluobookError(
            f"{node} has filed no request for kubernetes.io/kubelet-serving that fits: kubelets file one with"
            " `rotate-server-certificates: true` among machine.kubelet.extraArgs"
        )
    return [r.name for r in mine]


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 4."""
    nodes = context.platform.nodes
    silent = [node.name for node in nodes if node.name not in observation.serving | observation.denied]
    reached = f"{len(observation.serving)} of {len(nodes)}"
    reached += f"; not: {', '.join(silent)}" if silent else ""
    left = (
        f" but those left to kubelet-csr-approver ({', '.join(sorted(observation.denied))})"
        if observation.denied
        else ""
    )
    wrong = [r for r in observation.requests if r.state in ("Approved", "Issued") and not r.matches]
    result = _list("approved", wrong) or _list("left alone", observation.foreign) or "none came"
    return (
        Check(
            f"the API server reaches every kubelet{left}",
            not silent,
            reached,
        ),
        Check(
            "no mismatching CSR was approved",
            not wrong,
            result,
            remedy="if it was a node once, put it back into the params, or remove it from the cluster (kubectl delete "
            "node) and delete its requests (kubectl delete csr); else find out who approved it, and replace the "
            "cluster's CA, which revokes it",
        ),
    )


def _list(verb: str, requests: Sequence[Request]) -> str:
    return "; ".join(sorted({f"{verb} for {r.node or 'nobody'}: {', '.join(r.problems)}" for r in requests}))


STAGE = Stage(
    4,
    "approve-csrs",
    "Approve the kubelets' serving certificates",
    observe,
    plan,
    perform,
    verify,
    uses=("kubernetes",),
)
