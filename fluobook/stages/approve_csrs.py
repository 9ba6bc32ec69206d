"""Stage 4, approve-csrs: kubelets' serving certificates; each request is compared with the node's params.

The signer in Kubernetes checks neither the names nor the addresses in a request, nor who filed it; only the approver
protects. A request that does not match is named and left alone: it is never approved, and never denied either, since a
denial could affect what another controller is about to approve. The rules are those of the signer
`kubernetes.io/kubelet-serving`, and: the node is declared, it filed the request itself, and every name and address in
it is the node's own. `fluobook.kubernetes.kubelet_certificates` has what they share with `fluobook check`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from fluobook.context import RunContext
from fluobook.errors import KUBECTL, FluobookError
from fluobook.kubernetes.kubelet_certificates import NODE_PREFIX, problems_of
from fluobook.params import Platform
from fluobook.stages.core.check import Check
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.executor import Reporter, in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.core.stage import Stage

SIGNER = "kubernetes.io/kubelet-serving"
GROUP = "system:nodes"
USAGES = frozenset({"digital signature", "key encipherment", "server auth"})


@dataclass(frozen=True)
class Request:
    """A CertificateSigningRequest, as far as it matters here.

    `state` is Pending, Approved, Denied, Failed or Issued; `problems` say why it is not to be approved.
    """

    name: str
    requestor: str
    state: str
    uid: str = ""
    node: str = ""
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def matches(self) -> bool:
        """Whether it may be approved."""
        return not self.problems

    @property
    def pending(self) -> bool:
        """Whether it is neither approved nor denied."""
        return self.state == "Pending"


def evaluate(csr: Mapping[str, Any], platform: Platform) -> Request:
    """Read a request for a kubelet's serving certificate and compare it with the params."""
    spec, metadata = csr["spec"], csr["metadata"]
    known = Request(metadata["name"], str(spec.get("username", "")), state_of(csr), metadata.get("uid", ""))
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        names = list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return replace(known, problems=("its request cannot be read",))
    common = _subject(request, NameOID.COMMON_NAME)
    known = replace(
        known,
        node=common[0].removeprefix(NODE_PREFIX) if common else "",
        dns=tuple(name.value for name in names if isinstance(name, x509.DNSName)),
        ips=tuple(str(name.value) for name in names if isinstance(name, x509.IPAddress)),
    )
    problems = problems_of(platform, known.requestor, known.node, known.dns, known.ips)
    return replace(known, problems=(*_form(spec, request, names), *problems))


def state_of(csr: Mapping[str, Any]) -> str:
    """What has become of a request."""
    status = csr.get("status") or {}
    conditions = {condition["type"] for condition in status.get("conditions") or ()}
    if status.get("certificate"):
        return "Issued"
    return next((state for state in ("Failed", "Denied", "Approved") if state in conditions), "Pending")


def _form(
    spec: Mapping[str, Any], request: x509.CertificateSigningRequest, names: list[x509.GeneralName]
) -> Iterator[str]:
    """Which of the signer's own rules a request breaks."""
    usages, common = spec.get("usages") or (), _subject(request, NameOID.COMMON_NAME)
    if spec.get("signerName") != SIGNER:
        yield f"its signer is {spec.get('signerName')}"
    if not set(usages) <= USAGES or "server auth" not in usages:
        yield f"its usages are {', '.join(usages) or 'none'}"
    if not request.is_signature_valid:
        yield "it is not signed with its own key"
    if _subject(request, NameOID.ORGANIZATION_NAME) != [GROUP]:
        yield f"its organization is not {GROUP}"
    if len(common) != 1 or not common[0].startswith(NODE_PREFIX):
        yield f"its common name is {', '.join(common) or 'missing'}"
    allowed = [name for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]
    if not allowed:
        yield "it has no names or addresses"
    elif allowed != names:
        yield "it asks for more than names and addresses"


def _subject(request: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in request.subject.get_attributes_for_oid(oid)]


NAME = "approve-csrs"
APPROVER = "app.kubernetes.io/name=kubelet-csr-approver"
API, KIND = "certificates.k8s.io/v1", "CertificateSigningRequest"


@dataclass(frozen=True)
class Observation:
    """The state of the certificate requests.

    Args:
        missing: the earlier stage that has to run first.
        requests: every request for a kubelet's serving certificate.
        serving: nodes whose kubelet the API server reaches, with a certificate it accepts.
        denied: nodes that the platform's own approver denies their certificate: it learns of a new node in stage
            root-application, and denies at once until then; their kubelets ask again by themselves.
    """

    missing: Missing | None = None
    requests: Sequence[Request] = ()
    serving: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    @property
    def foreign(self) -> list[Request]:
        """The pending requests that do not match the params."""
        return [r for r in self.requests if r.pending and not r.matches]


def observe(context: RunContext) -> Observation:
    """Read the requests, and ask every kubelet through the API server."""
    nodes, kube = context.platform.nodes, api(context)
    if isinstance(kube, Missing):
        return Observation(missing=kube)
    requests = requests_of(context)
    answers = in_parallel(lambda node: kube.kubelet_answers(node.name), nodes)
    serving = frozenset(node.name for node, ok in zip(nodes, answers, strict=True) if ok)
    silent = [node.name for node in nodes if node.name not in serving]
    denied = frozenset(name for name in silent if _is_denied(context, name, requests))
    return Observation(None, requests, serving, denied)


def _is_denied(context: RunContext, node: str, requests: Sequence[Request]) -> bool:
    """Whether a request of the node matches the params and was denied by the approver that Argo CD has brought."""
    states = {request.state for request in requests if request.matches and request.node == node}
    if "Pending" in states or "Denied" not in states:
        return False
    return bool(context.kube().list("apps/v1", "Deployment", labels=APPROVER))


def requests_of(context: RunContext) -> list[Request]:
    """Every request for a kubelet's serving certificate, each evaluated."""
    csrs = context.kube().list(API, KIND, fields=f"spec.signerName={SIGNER}")
    return [evaluate(csr, context.platform) for csr in sorted(csrs, key=lambda csr: csr["metadata"]["name"])]


def pending(requests: Iterable[Request], node: str) -> list[Request]:
    """The pending requests of a node that match the params."""
    return [request for request in requests if request.pending and request.matches and request.node == node]


def plan(platform: Platform, observation: Observation) -> Plan:
    """One action for each node whose kubelet has no certificate yet, or asks for one."""
    actions = []
    for node in platform.nodes:
        waiting = pending(observation.requests, node.name)
        if waiting or node.name not in observation.serving | observation.denied:
            reason = "asks for its certificate" if waiting else "has no certificate and has not asked yet"
            title, detail = f"certificate of {node.name}", f"{node.name}, {node.address}"
            data = {"node": node.name, "dns": [node.name], "ips": [str(node.address)]}
            actions.append(
                Action(f"approve {node.name}", "approve", title, detail, reason, system="kubernetes", data=data)
            )
    notes = _list("left alone", observation.foreign)
    notes += [f"left to kubelet-csr-approver: {name}; {_LEARNS}" for name in sorted(observation.denied)]
    missing = observation.missing
    notes += [missing.reason] if missing else []
    waits, kept = missing.stage if missing else "", len(platform.nodes) - len(actions)
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), waits, tuple(notes))


_LEARNS = "it denies new nodes until stage root-application has updated it; then they get their certificates"


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Approve a node's request once it exists, and wait until its kubelet serves with the certificate."""
    node, kube = action.data["node"], context.kube()

    names: list[str] = []

    def approve(requests: Iterable[Request]) -> bool:
        """Evaluate again at the moment of approval: a request may have changed since the plan."""
        own = pending(requests, node)
        for request in own:
            message = f"matches the params of {node}"
            approved = kube.approve_csr(request.name, uid=request.uid, reason="FluobookApproved", message=message)
            report.evidence(csr=request.name, resource_version=approved["metadata"]["resourceVersion"])
            names.append(request.name)
        return bool(own)

    def requested() -> bool:
        requests = requests_of(context)
        if _is_denied(context, node, requests) or approve(requests) or kube.kubelet_answers(node):
            return True
        raise FluobookError(
            f"{node} has filed no matching request for {SIGNER}: kubelets file one with"
            " `rotate-server-certificates: true` among machine.kubelet.extraArgs"
        )

    def serves() -> bool | None:
        """A kubelet that has waited for long files another request, and uses the certificate of that one alone."""
        return None if approve(requests_of(context)) else kube.kubelet_answers(node) or None

    context.wait_until("csr", f"{node} to request its certificate", requested)
    if not names and not kube.kubelet_answers(node):
        return {"left": f"to kubelet-csr-approver; {_LEARNS}"}
    report("waits for the certificate")
    context.wait_until("csr", f"the kubelet of {node} to serve with its certificate", serves)
    return {"approved": names}


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 4."""
    names, denied = [node.name for node in context.platform.nodes], ", ".join(sorted(observation.denied))
    silent = [name for name in names if name not in observation.serving | observation.denied]
    reached = f"{len(observation.serving)} of {len(names)}" + (f"; not: {', '.join(silent)}" if silent else "")
    wrong = [r for r in observation.requests if r.state in ("Approved", "Issued") and not r.matches]
    result = _list("approved", wrong) or _list("left alone", observation.foreign) or ["none came"]
    left = f" but those left to kubelet-csr-approver ({denied})" if denied else ""
    return (
        Check(f"the API server reaches every kubelet{left}", not silent, reached),
        Check(
            "no mismatching CSR was approved",
            not wrong,
            "; ".join(result),
            remedy="if it was a node once, put it back into the params, or remove it from the cluster "
            f"({KUBECTL} delete node) and delete its requests ({KUBECTL} delete csr); else find out who approved it, "
            "and replace the cluster's CA, which revokes it",
        ),
    )


def _list(state: str, requests: Iterable[Request]) -> list[str]:
    return sorted({f"{state}, for {r.node or 'nobody'}: {'; '.join(r.problems)}" for r in requests})


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
