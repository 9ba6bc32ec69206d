"""The rotation of an authority in three phases, each of which every node passes before the next begins.

Nodes accept the new authority too, then issue with it, then forget the old one. The new authority is in an encrypted
file beside the secrets bundle before any node knows it, and the old one until no node accepts it. Whatever was killed
goes on from that file and from what the nodes say.

Workloads that use the API read its authority as they start. Each carries the authority for which it was restarted as
an annotation, so a run that was killed restarts the rest.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from fluobook.clients.kube import Kube
from fluobook.clients.talos import Mode, probe
from fluobook.context import RunContext
from fluobook.errors import PHASE, AccessDenied, FluobookError, Refused, TaskFailed, Unreachable
from fluobook.gitops.root import NAMESPACE as ARGOCD
from fluobook.machine import access, pki
from fluobook.machine.contracts import value_at
from fluobook.machine.secrets import ACCEPT, DROP, ISSUE, PHASES, Rotation, SecretsBundle
from fluobook.params import KUBERNETES_PORT, Node, Platform
from fluobook.stages import approve_csrs, health
from fluobook.stages.apply_talos_config.documents import Configurations
from fluobook.stages.apply_talos_config.plan import dry_run
from fluobook.stages.bootstrap_kubernetes.work import write_file
from fluobook.stages.core.executor import Reporter, in_parallel
from fluobook.stages.core.plan import Action
from fluobook.stages.core.readiness import WORKLOADS, has_condition, listed, why_not
from fluobook.stages.day_two.expiry import AUTHORITIES, ROTATED

Obj = Mapping[str, Any]

FILES = {"talos": "talosconfig", "kubernetes": "kubeconfig"}
"""The file whose client certificate an authority signs."""
WORDS = {
    ACCEPT: "accepts the new authority beside the old one",
    ISSUE: "issues with the new authority, accepts the old one",
    DROP: "forgets the old authority",
}
RESTARTED = "kubectl.kubernetes.io/restartedAt"
"""What `kubectl rollout restart` writes, and what CloudNativePG restarts its instances for."""
RESTARTED_FOR = "fluobook.io/authority"
"""The fingerprint of the authority for which a workload was restarted."""
FIRST = ("kube-system", ARGOCD)
"""Namespaces whose workloads all others depend on: the network, and what repairs the rest."""
DATABASE = ("postgresql.cnpg.io/v1", "Cluster")
ROOT_CA = "kube-root-ca.crt"
DONE, BEHIND = "done", "behind"
"""What a node's configuration is: that of the present phase, or that of the phase before."""


@dataclass(frozen=True)
class Authority:
    """An authority, and how far its rotation has come.

    Args:
        name: its field in the bundle.
        made: when it was made.
        wanted: it is rotated if it was made before this; None if nobody asked.
        phase: of the rotation that has begun; "" if none has.
        nodes: by the node's name `DONE`, `BEHIND`, or why neither is known.
    """

    name: str
    made: dt.datetime
    wanted: dt.datetime | None = None
    phase: str = ""
    nodes: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_due(self) -> bool:
        """Whether a rotation is asked for, or has begun."""
        return bool(self.phase) or (self.wanted is not None and self.made < self.wanted)


def moment(platform: Platform, param: str, now: dt.datetime) -> dt.datetime | None:
    """The time in a field of `rotate`: what was made before it is rotated; None if nobody asked.

    Raises:
        Refused: it has not come yet.
    """
    text = getattr(platform.rotate, param)
    time = dt.datetime.fromisoformat(text) if text else None
    time = time if time is None or time.tzinfo else time.replace(tzinfo=dt.UTC)
    if time and time > now:
        raise Refused(
            f"rotate.{param} is {text}, which has not come yet",
            cause="what is made before that time would be rotated by every run until then",
            remedy="give the present time, or a past one",
        )
    return time


def observe(context: RunContext, now: dt.datetime) -> Sequence[Authority]:
    """The authorities, and for those to be rotated how far each node has come.

    Raises:
        Refused: a time in the params has not come yet.
    """
    bundle, authorities = context.secrets.bundle(), []
    for name, param in ROTATED.items():
        wanted = moment(context.platform, param, now)
        rotation = bundle.rotations.get(name)
        made = pki.certificate(getattr(bundle, name).crt).not_valid_before_utc + pki.BACKDATE
        authority = Authority(name, made, wanted, rotation.phase if rotation else "")
        if authority.is_due:
            texts = [bundle, *before(bundle, name)]
            nodes = context.platform.nodes
            states = in_parallel(lambda node: _state(context, node, texts), nodes, width=len(nodes))  # noqa: B023
            authority = replace(authority, nodes=dict(zip([n.name for n in nodes], states, strict=True)))
        authorities.append(authority)
    return authorities


def before(bundle: SecretsBundle, name: str) -> Sequence[SecretsBundle]:
    """The secrets of the phase before the present one of a rotation; none if there is no rotation."""
    rotation = bundle.rotations.get(name)
    if rotation is None:
        return ()
    others = {key: each for key, each in bundle.rotations.items() if key != name}
    if rotation.phase == ACCEPT:
        return (bundle.rotating(others),)
    return (bundle.rotating({**others, name: replace(rotation, phase=PHASES[PHASES.index(rotation.phase) - 1])}),)


def _state(context: RunContext, node: Node, secrets: Sequence[SecretsBundle]) -> str:
    try:
        for state, bundle in zip((DONE, BEHIND), secrets, strict=False):
            if dry_run(context, node, Configurations.of(context).text(node, bundle))[0].unchanged:
                return state
    except FluobookError as error:
        return error.message
    return "has another configuration than that of the params"


def actions(platform: Platform, authority: Authority, first: Sequence[Action]) -> Iterator[Action]:
    """The actions that are left of a rotation, one after the other.

    Args:
        platform: the params.
        authority: how far it has come.
        first: what has to be done before.

    Raises:
        Refused: a node does not answer, or has another configuration than the params say.
    """
    name, title = authority.name, f"authority of {AUTHORITIES[authority.name]}"
    if wrong := [f"{node}: {state}" for node, state in authority.nodes.items() if state not in (DONE, BEHIND)]:
        raise Refused(
            f"the {title} is not rotated: {'; '.join(wrong)}",
            cause="every node must pass a phase before the next begins: one that misses a phase accepts our "
            "certificates no more",
            remedy=f"bring the node back, or remove it: fluobook run {PHASE} nodes; if its configuration differs: "
            f"fluobook run {PHASE} --only apply-talos-config",
        )
    last = tuple(action.id for action in first)

    def action(ident: str, verb: str, thing: str, detail: str, reason: str = "", **data: str) -> Action:
        nonlocal last
        made = Action(ident, verb, thing, detail, reason, last, "node", {"authority": name, **data})
        last = (made.id,)
        return made

    yield action(f"{name}: gates", "check", "the platform", "all gates", f"before the {title} is changed")
    begin = authority.phase or ACCEPT
    if not authority.phase:
        reason = f"rotate.{ROTATED[name]} asks for one that is younger"
        yield action(f"{name}: new", "create", title, "encrypted beside the old one, before any node knows it", reason)
    for phase in PHASES[PHASES.index(begin) :]:
        if phase == ISSUE != begin and name == "kubernetes":
            reason, detail = "their pods know only the old authority", "one after the other"
            yield action(f"{name}: restart", "restart", "workloads that use the API", detail, reason)
        if phase != begin:
            proof = "every node is tested with certificates of the new authority, then all gates"
            yield action(f"{name}: {phase}", "advance", title, proof, f"each node {WORDS[phase]}", phase=phase)
        todo = [n for n in platform.nodes if phase != authority.phase or authority.nodes[n.name] != DONE]
        # A kubelet gets a certificate of the new authority when its node forgets the old one, which API servers must
        # accept until then.
        for node in sorted(todo, key=lambda node: (node.role == "controlplane") is (phase == DROP)):
            thing = f"node {node.name}"
            yield action(f"{name} {phase} {node.name}", "change", thing, WORDS[phase], phase=phase, node=node.name)
    yield action(f"{name}: end", "advance", title, "no node accepts the old one; it is deleted", "the rotation is done")


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action of a rotation.

    Raises:
        TaskFailed: a node does not accept what it should, or still accepts what it should not.
    """
    name, phase = action.data["authority"], action.data.get("phase", "")
    if node := action.data.get("node"):
        return _apply(context, context.platform.node(node), name, report)
    if action.verb == "check":
        health.wait_between(context, report)
        return None
    if action.verb == "restart":
        new = context.secrets.bundle().rotations[name].new.crt
        return {"restarted": restart_all(context, pki.fingerprint(new)[:23], new, report)}
    if action.verb == "create":
        context.secrets.begin_rotation(name)
    else:
        for each in context.platform.nodes:
            report(f"asks {each.name}")
            _proved(context, each, name)
        health.wait_between(context, report)
        if phase:
            context.secrets.advance_rotation(name, phase)
        else:
            context.secrets.end_rotation(name)
    context.reconnect()
    write_file(context, FILES[name])
    return {"sha256": pki.fingerprint(getattr(context.secrets.bundle(), name).crt)}


def _apply(context: RunContext, node: Node, name: str, report: Reporter) -> Mapping[str, Any]:
    """Give a node the configuration of the present phase, unless it has it, and prove that it follows."""
    text, client = Configurations.of(context).text(node), context.talos.client(node, "os:admin")
    mode = "unchanged"
    if not dry_run(context, node, text)[0].unchanged:
        mode = client.apply_configuration(text).mode
    report("is tested with certificates of the new authority")
    _proved(context, node, name)
    return {"mode": mode}


def proof(rotation: Rotation) -> tuple[str, pki.KeyPair, Mode]:
    """How a node that has passed the present phase answers: the trusted authorities, whose client asks, the answer."""
    both = f"{rotation.old.crt.rstrip()}\n{rotation.new.crt}"
    return {
        ACCEPT: (both, rotation.new, Mode.CONFIGURED),
        ISSUE: (rotation.new.crt, rotation.new, Mode.CONFIGURED),
        DROP: (rotation.new.crt, rotation.old, Mode.FOREIGN),
    }[rotation.phase]


def _proved(context: RunContext, node: Node, name: str) -> None:
    """Wait until a node answers as the present phase demands."""
    rotation = context.secrets.bundle().rotations[name]
    trusted, issuer, wanted = proof(rotation)
    ask = _asked_by_talos if name == "talos" else _asked_by_kubernetes
    step = ask(context, node, trusted, issuer, wanted)
    context.wait_until("gate", f"the test of {node.name}, which {WORDS[rotation.phase]}", step)


def _asked_by_talos(
    context: RunContext, node: Node, trusted: str, issuer: pki.KeyPair, wanted: Mode
) -> Callable[[], bool]:
    """Whether the Talos API of a node accepts a client, and shows a certificate of a trusted authority."""
    identity = access.talos_client(replace(context.secrets.bundle(), talos=issuer), access.READER)
    context.redactor.add(identity.key)

    def step() -> bool:
        answer = probe(context.talos.address(node), ca=trusted, identity=identity)
        if answer.mode is not wanted:
            raise TaskFailed(f"{node.name} answers as {answer.mode.value}: {answer.detail}", system="talos")
        return True

    return step


def _asked_by_kubernetes(
    context: RunContext, node: Node, trusted: str, issuer: pki.KeyPair, wanted: Mode
) -> Callable[[], bool]:
    """Whether a node is Ready and its kubelet serves; on a control plane its API server is asked too.

    A kubelet that has forgotten the old authority asks for another certificate, which is approved as in stage 4.
    """
    bundle, platform = context.secrets.bundle(), context.platform
    host, port = platform.route(node.address, KUBERNETES_PORT)
    trusting = replace(bundle, kubernetes=pki.KeyPair(trusted, ""), rotations={})
    url, name = f"https://{host}:{port}", platform.cluster.name

    def version(authority: pki.KeyPair) -> str:
        identity = access.kubernetes_client(replace(bundle, kubernetes=authority))
        context.redactor.add(identity.key)
        kubeconfig = access.kubeconfig(trusting, name, url, server_name=node.address, identity=identity)
        with closing(Kube.from_kubeconfig(kubeconfig)) as kube:
            return kube.version()

    def step() -> bool:
        if node.role == "controlplane":
            version(bundle.rotations["kubernetes"].new)
        if node.role == "controlplane" and wanted is Mode.FOREIGN:
            _require_refusal(lambda: version(issuer), node)
        kube = context.kube()
        for request in approve_csrs.pending(approve_csrs.requests_of(context), node.name):
            kube.approve_csr(
                request.name, uid=request.uid, reason="FluobookApproved", message=f"matches the params of {node.name}"
            )
        if not has_condition(kube.get("v1", "Node", node.name), "Ready"):
            raise TaskFailed(f"{node.name} is not Ready", system="kubernetes")
        if not kube.kubelet_answers(node.name):
            raise TaskFailed(f"the kubelet of {node.name} has no certificate yet", system="kubernetes")
        return True

    return step


def _require_refusal(ask: Callable[[], str], node: Node) -> None:
    """Ask an API server that answers others, and must refuse us for our certificate."""
    try:
        ask()
    except (AccessDenied, Unreachable):
        return
    raise TaskFailed(f"the API server of {node.name} still accepts the old authority", system="kubernetes")


def uses_the_api(workload: Obj) -> bool:
    """Whether the pods of a workload have a token for the API, and a restart of it reaches them."""
    pod = value_at(workload, "spec.template.spec") or {}
    by_hand = value_at(workload, "spec.updateStrategy.type") == "OnDelete" or value_at(workload, "spec.paused")
    return pod.get("automountServiceAccountToken") is not False and not by_hand


def left(workloads: list[Obj], authority: str) -> list[Obj]:
    """What has not been restarted for an authority yet, what all others depend on first."""
    marks = {True: "metadata.annotations", False: "spec.template.metadata.annotations"}
    todo = [
        w for w in workloads if (value_at(w, marks[w["kind"] == DATABASE[1]]) or {}).get(RESTARTED_FOR) != authority
    ]
    place = {name: number for number, name in enumerate(FIRST)}
    return sorted(todo, key=lambda w: place.get(w["metadata"].get("namespace", ""), len(place)))


def restart_all(context: RunContext, authority: str, pem: str, report: Callable[[str], object]) -> int:
    """Restart everything that uses the API, one workload after the other; returns how many there were.

    Args:
        context: the platform.
        authority: the fingerprint of the new authority.
        pem: its certificate, which every namespace must have first: pods that start read it there.
        report: receives what is restarted.
    """
    kube = context.kube()

    def published() -> bool | None:
        roots = [each for each in kube.list("v1", "ConfigMap") if each["metadata"]["name"] == ROOT_CA]
        without = [
            r["metadata"]["namespace"] for r in roots if pem.strip() not in (r.get("data") or {}).get("ca.crt", "")
        ]
        if without or not roots:
            raise FluobookError(f"the new authority is not yet in {ROOT_CA} of {', '.join(without) or 'any namespace'}")
        return True

    context.wait_until("gate", f"every namespace to have the new authority in {ROOT_CA}", published)
    workloads = [each for kind in WORKLOADS for each in kube.list("apps/v1", kind) if uses_the_api(each)]
    todo = left([*workloads, *({**each, "kind": DATABASE[1]} for each in listed(kube, *DATABASE))], authority)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    for each in todo:
        report(f"{each['kind']} {each['metadata'].get('namespace')}/{each['metadata']['name']}")
        restart(context, each, {RESTARTED_FOR: authority, RESTARTED: now})
    return len(todo)


def restart(context: RunContext, workload: Obj, annotations: Mapping[str, str]) -> None:
    """Replace the pods of a workload as its own rules say, and wait until the new ones are ready."""
    kube, metadata = context.kube(), workload["metadata"]
    name, namespace = metadata["name"], metadata.get("namespace", "")
    if workload["kind"] == DATABASE[1]:
        kube.patch(*DATABASE, name, namespace, body={"metadata": {"annotations": dict(annotations)}})
        return
    at = "apps/v1", workload["kind"]
    body = {"spec": {"template": {"metadata": {"annotations": dict(annotations)}}}}
    generation = kube.patch(*at, name, namespace, body=body)["metadata"].get("generation", 0)

    def ready() -> bool | None:
        present = kube.find(*at, name, namespace)
        if present is None:
            return True  # an operator has taken it away
        if (value_at(dict(present), "status.observedGeneration") or 0) < generation or (reason := why_not(present)):
            raise FluobookError(reason if present and why_not(present) else "its restart has not begun")
        return True

    context.wait_until("gate", f"{workload['kind']} {namespace}/{name} to run again", ready)
