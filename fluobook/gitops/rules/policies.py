"""NetworkPolicies: every namespace denies first, and who may reach whom is as the table expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.gitops.reach import expected
from fluobook.gitops.rules.namespaces import made
from fluobook.kubernetes.policies import Policies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document
    from fluobook.gitops.look import Finding, Look, Place
    from fluobook.gitops.reach.expected import Cell, Expected

_KINDS = ("NetworkPolicy", "CiliumNetworkPolicy")
_WITH_PODS = ("default", "kube-system")
_SHOWN = 3


def policies_of(look: Look) -> Policies[Document]:
    """The policies that the tree deploys, with the labels of its namespaces."""
    documents = tuple(one for _, one in look.deployed if one.kind in _KINDS and isinstance(one.data.get("spec"), dict))
    labels = {name: one.data["metadata"].get("labels") or {} for name, (_, one) in made(look).items()}
    return Policies(documents, labels)


def namespaces_deny_first(look: Look) -> Iterator[Finding]:
    """Every namespace with pods has a default deny, applied after what it allows; no rule lets everybody in by name."""
    policies = policies_of(look).policies
    denied = {policy.namespace for policy in policies if _denies_all(policy)}
    for name in [*_WITH_PODS, *made(look)]:
        if name not in denied:
            yield look.at(_of_namespace(look, name), "metadata", "name").finding(
                "policy",
                f"namespace {name} has no default deny for ingress",
                "add default-deny-ingress to its policies",
            )
    for policy in policies:
        if not _denies_all(policy) and not policy.name.startswith("allow-"):
            yield look.at(policy, "metadata", "name").finding(
                "policy", f"{policy.name} would be applied after the default deny", "let its name begin with allow-"
            )
        for field in _closes_egress(policy):
            yield look.at(policy, "spec", field).finding(
                "policy", f"{policy.name} closes egress, which no row of {expected.NAME} proves", "leave egress open"
            )
        for index in _open_to_all_pods(policy):
            yield look.at(policy, "spec", "ingress", index).finding(
                "policy", f"{policy.name} lets every pod in, on every port", "name a namespace, or a port"
            )


def _of_namespace(look: Look, name: str) -> Document:
    """Where the policies of a namespace stand: the first of them, else the namespace itself, else their Application."""
    policies = (policy for policy in policies_of(look).policies if policy.namespace == name)
    namespace = made(look).get(name)
    here = namespace[1] if namespace else look.tree.application("network-policies").document
    return next(policies, here)


def reachability_is_as_expected(look: Look) -> Iterator[Finding]:
    """What the table says is open is open, and nothing else is."""
    table = expected.read(look.top / expected.NAME)
    wrong: dict[tuple[Place, int], list[str]] = {}
    for cell in expected.matrix(table, policies_of(look)):
        if not cell.is_as_expected:
            wrong.setdefault((_place(look, table, cell), cell.row), []).append(cell.question())
    for (place, row), questions in wrong.items():
        some = ", ".join(questions[:_SHOWN]) + (
            f" and {len(questions) - _SHOWN} more" if len(questions) > _SHOWN else ""
        )
        yield place.finding(
            "reachability",
            f"{f'closed, and {expected.NAME}:{row} wants it open' if row else 'open, and no row expects it'}: {some}",
            "let a policy allow it" if row else f"narrow the policy, or add a row to {expected.NAME}",
        )


def _place(look: Look, table: Expected, cell: Cell) -> Place:
    """Where the mistake is: the policy that allows too much, or stays in the way; or the pod without any."""
    if cell.verdict.policies:
        return look.at(cell.verdict.policies[0], "metadata", "name")
    return look.at(table.document, "pods", cell.target)


def _denies_all(policy: Document) -> bool:
    spec = policy.data["spec"]
    return policy.kind == "NetworkPolicy" and not spec.get("podSelector") and not spec.get("ingress")


def _closes_egress(policy: Document) -> list[str]:
    """The fields by which a policy isolates its pods for what they open themselves: DNS and the API first of all."""
    spec = policy.data["spec"]
    types = ["policyTypes"] if "Egress" in (spec.get("policyTypes") or ()) else []
    return types or [key for key in ("egress", "egressDeny") if key in spec]


def _open_to_all_pods(policy: Document) -> Iterator[int]:
    for index, rule in enumerate(policy.data["spec"].get("ingress") or ()):
        everybody = any(
            peer.get("namespaceSelector") == {} and not peer.get("podSelector") for peer in rule.get("from") or ()
        )
        if not rule.get("ports") and (everybody or not (rule.get("from") or rule.get("fromEntities"))):
            yield index
