"""What stage 2 reads of the nodes, the plan that follows from it, the checks after it, and the claim on the cluster.

The claim: the VM of the first control plane names the secrets bundle from which the cluster is made. A machine in
maintenance mode takes a configuration from anybody, so two checkouts without a bundle could each make one and configure
some of the nodes. Proxmox VE changes a VM only if its configuration still has the digest that was read, so of two
claims one is written, and the other checkout sends nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fluobook.clients.talos import Applied, Mode, Probe
from fluobook.context import RunContext
from fluobook.errors import PHASE, Conflict, FluobookError, ForeignObject, NotFound, Refused
from fluobook.files import read_text
from fluobook.machine.secrets import SecretsBundle
from fluobook.params import Node, Platform
from fluobook.params.versions import minor_of, ordered
from fluobook.stages.apply_talos_config.documents import Configurations, Ingredients
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.cluster import probe_nodes, waits_for_control_plane
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.plan import Action, Plan
from fluobook.waiting import retry

NAME = "apply-talos-config"
MARK = "fluobook secrets bundle:"
_CLAIM = re.compile(rf"^{MARK} *(\w+) *$", re.MULTILINE)
TRIES = 5
"""How often a claim is written while somebody else keeps changing the VM."""
_RELEASE = re.compile(r"v?\d+\.\d+\.\d+")
_CONTRACT = re.compile(r"^([+-])kind: KubeClusterConfig$", re.MULTILINE)
_IMAGE = re.compile(r"^([+-])\s*image: \S+/(kubelet|kube-[a-z-]+):v(\d+\.\d+\.\d+)", re.MULTILINE)
"""Lines of a dry run's difference: a document that only contract 1.14 has, and an image of Kubernetes."""


@dataclass(frozen=True)
class Observation:
    """The state of the nodes.

    Args:
        bundle: whether the secrets bundle exists.
        probes: what answers at each node's address.
        dry_runs: what each configured node would change.
        ingredients: what goes into the configurations.
        versions: each configured node's Talos version.
        claimed: the fingerprint of the bundle that has claimed the cluster; "" if none has.
        own: the fingerprint of this checkout's bundle; "" if there is none.
        path: the bundle's file.
    """

    bundle: bool
    probes: Mapping[str, Probe]
    ingredients: Ingredients = field(repr=False)
    dry_runs: Mapping[str, Applied] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    claimed: str = ""
    own: str = ""
    path: str = ""

    def mode(self, node: Node) -> Mode:
        """What answers at a node's address."""
        return self.probes[node.name].mode

    def may_be_configured(self, platform: Platform, node: Node) -> bool:
        """Whether a silent node may have its configuration, from a run that ended before a control plane had one."""
        modes = {name: probe.mode for name, probe in self.probes.items()}
        return self.bundle and waits_for_control_plane(node, platform, modes)


def observe(context: RunContext) -> Observation:
    """Probe all nodes in parallel, while the parts of their configurations are read and rendered."""
    platform = context.platform
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(Configurations.of, context)
        probes = probe_nodes(context)
        configurations = reading.result()
    configured = [node for node in platform.nodes if probes[node.name].mode is Mode.CONFIGURED]
    answers = in_parallel(
        lambda node: dry_run(context, node, configurations.text(node)),
        configured,
    )
    names = [node.name for node in configured]
    dry_runs = dict(zip(names, (applied for applied, _ in answers), strict=True))
    versions = dict(zip(names, (version for _, version in answers), strict=True))
    in_maintenance = any(answer.mode is Mode.MAINTENANCE for answer in probes.values())
    bundle = context.secrets.has_bundle()
    return Observation(
        bundle,
        probes,
        configurations.ingredients,
        dry_runs,
        versions,
        claimed_by(context) if in_maintenance else "",
        fingerprint(context.secrets.bundle()) if in_maintenance and bundle else "",
        context.secrets.path.name,
    )


def is_not_yet(error: FluobookError) -> bool:
    """Whether a node is busy with another configuration, or is just about to restart."""
    return getattr(error, "code", "") in ("FAILED_PRECONDITION", "UNAVAILABLE")


def dry_run(context: RunContext, node: Node, text: str) -> tuple[Applied, str]:
    """What applying a configuration to a configured node would change, and the node's Talos version.

    Raises:
        Refused: the node's Talos is older than the configuration's contract.
        OutsideError: the node refuses the configuration, or has no answer.
    """
    talos, contract = context.talos.client(node, "os:admin"), context.platform.versions.contract

    def once() -> tuple[Applied, str]:
        tag = talos.version().tag
        if _RELEASE.match(tag) and ordered(minor_of(tag)) < ordered(contract):
            raise Refused(
                f"{node.name} runs Talos {tag}, which cannot read a configuration of contract {contract}",
                cause="a cluster keeps the version contract that it was made with",
                remedy="set versions.contract in the params to the contract that the cluster was made with",
            )
        return talos.apply_configuration(text, dry_run=True), tag

    return retry(
        once,
        if_error=is_not_yet,
        pauses=(0.3, 1.0, 3.0),
        cancellation=context.cancellation,
    )


def plan(platform: Platform, observation: Observation) -> Plan:
    """The actions of stage 2.

    Raises:
        ForeignObject: a node of another cluster answers at an address of ours.
        Refused: nodes have a configuration, or the cluster is claimed, and the secrets bundle of that is not here; or
            the params say an older version than a node runs, leave a minor version out, or say another contract or
            another version of Kubernetes.
    """
    _nothing_foreign(platform, observation)
    _no_wrong_step(platform, observation)
    require_claim(observation.claimed, observation.own, observation.path)
    silent = [
        node.name
        for node in platform.nodes
        if observation.mode(node) is Mode.UNREACHABLE and not observation.may_be_configured(platform, node)
    ]
    actions = []
    if not observation.bundle:
        detail = "encrypted with SOPS, written once"
        actions = [Action("secrets bundle", "write", "secrets bundle", detail, "there is none yet")]
    cycled = ""
    for node in platform.nodes:
        if action := _apply(platform, node, observation, cycled):
            actions.append(action)
            cycled = action.id if action.system == "cycle" else cycled
    notes = [f"{name}: {warning}" for name, applied in observation.dry_runs.items() for warning in applied.warnings]
    kept = 1 + len(platform.nodes) - len(actions)
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), "create-vms" if silent else "", tuple(notes))


def _nothing_foreign(platform: Platform, observation: Observation) -> None:
    foreign = {n.name: observation.probes[n.name].detail for n in platform.nodes if observation.mode(n) is Mode.FOREIGN}
    if foreign and not observation.bundle:
        raise Refused(
            f"{', '.join(foreign)} have a configuration, but there is no secrets bundle here",
            cause="the bundle was made in another checkout or on another machine; a new one would be another cluster",
            remedy="bring the bundle (secrets.bundle in the params) from where the cluster was made",
        )
    if foreign:
        conflicts = "; ".join(f"{name}: {detail}" for name, detail in foreign.items())
        raise ForeignObject(
            f"a node of another cluster answers: {conflicts}",
            cause="another cluster has this address, or the secrets bundle is not the one this cluster was made with",
            remedy="find out which cluster it is; it is never wiped from here",
        )


def _no_wrong_step(platform: Platform, observation: Observation) -> None:
    """Refuse versions and contracts to which running nodes cannot be changed."""
    versions = platform.versions
    others = {name: mark for name, run in observation.dry_runs.items() for mark in _CONTRACT.findall(run.details)}
    if others and not (versions.migrates_from and set(others.values()) == {"+"}):
        born = "an older" if "+" in others.values() else "a newer"
        raise Refused(
            f"{', '.join(others)}: the configuration is of {born} contract than versions.contract, {versions.contract}",
            cause="a cluster keeps the version contract that it was made with; another one brings other defaults",
            remedy="set versions.contract in the params to the contract that the cluster was made with; to move the "
            "cluster to a newer one, set versions.migrates_from too (docs/how-to/talos-1.14.md)",
        )
    steps = [(name, "talos", running, versions.talos) for name, running in observation.versions.items()]
    changes = [(name, *change) for name, run in observation.dry_runs.items() for change in _of_kubernetes(run.details)]
    steps += [(name, "kubernetes", old, new) for name, old, new in changes]
    problems: dict[str, list[str]] = {}
    for name, *step in steps:
        if problem := step_problem(*step):
            problems.setdefault(problem, []).append(name)
    if problems:
        raise Refused(
            "; ".join(f"{', '.join(dict.fromkeys(names))}: {problem}" for problem, names in problems.items()),
            cause="neither Talos nor Kubernetes can go back to an older version, or leave a minor version out",
            remedy="set the version in the params to the one that runs, or to one of the next minor version",
        )
    if changes:
        names = ", ".join(dict.fromkeys(name for name, _, _ in changes))
        old = " and ".join(sorted({old for _, old, _ in changes}, key=ordered))
        raise Refused(
            f"{names}: configured for Kubernetes {old}; versions.kubernetes is {versions.kubernetes}",
            cause="this stage would change API server and kubelet of a node at once, with its pods on it and without "
            "fetching the images first",
            remedy=f"fluobook run {PHASE} upgrade-kubernetes, or set versions.kubernetes in the params to what runs",
        )


def _of_kubernetes(details: str) -> Iterator[tuple[str, str]]:
    """The changes of the version of Kubernetes in a dry run's difference: old and new, for each program."""
    images = {(sign, program): version for sign, program, version in _IMAGE.findall(details)}
    for (sign, program), old in images.items():
        if sign == "-" and (new := images.get(("+", program))) and new != old:
            yield old, new


def step_problem(component: str, running: str, wanted: str) -> str:
    """Why a version cannot be changed to another: it is older, or leaves a minor version out; "" if it can.

    Args:
        component: "talos" or "kubernetes", a key of `versions` in the params.
        running: the version that runs, such as "v1.13.9"; "" is unknown.
        wanted: the version in the params.
    """
    if not _RELEASE.match(running):
        return ""
    old, new = ordered(running), ordered(wanted)
    if new < old:
        return f"runs {component} {running}; versions.{component} is {wanted}, which is older"
    if new[0] != old[0] or new[1] > old[1] + 1:
        return f"runs {component} {running}; versions.{component} is {wanted}, which leaves a minor version out"
    return ""


def _apply(platform: Platform, node: Node, observation: Observation, cycled: str) -> Action | None:
    """The action for one node; configured nodes change one after the other, each after the action `cycled`."""
    applied = observation.dry_runs.get(node.name)
    if applied and applied.unchanged:
        return None
    silent = observation.mode(node) is Mode.UNREACHABLE and observation.may_be_configured(platform, node)
    missing = "does not answer before a control plane does" if silent else "has no configuration"
    return Action(
        f"apply {node.name}",
        "change" if applied else "apply",
        f"node {node.name}",
        f"{node.role}, Talos {platform.versions.talos}, Kubernetes {platform.versions.kubernetes}",
        f"differs: {what_differs(applied.details)}" if applied else missing,
        tuple(filter(None, (cycled,))) if applied else ("secrets bundle",),
        "cycle" if applied else "talos",
        {"node": node.name, "ingredients": observation.ingredients.digest()},
    )


def what_differs(details: str, most: int = 6) -> str:
    """At most `most` keys in the changed lines of a difference; never their values, which may be secrets."""
    changed = []
    for line in details.splitlines():
        if line.startswith(("+", "-")) and not line.startswith(("+++", "---")):
            key, colon, _ = line[1:].strip().removeprefix("- ").partition(":")
            changed.append(f"{line[0]} {key if colon else '(an item of a list)'}")
    changed = list(dict.fromkeys(changed))
    return ", ".join(changed[:most]) + (f" and {len(changed) - most} more" if len(changed) > most else "")


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """The checks of stage 2."""
    nodes = context.platform.nodes
    unconfigured = [node.name for node in nodes if observation.mode(node) is not Mode.CONFIGURED]
    differing = [name for name, applied in observation.dry_runs.items() if not applied.unchanged]
    wanted = f"v{context.platform.versions.talos.removeprefix('v')}"
    versions = [f"{name} has {tag or 'unknown'}" for name, tag in observation.versions.items() if tag != wanted]
    checks = {
        "every node trusts this cluster's authority": unconfigured,
        "every node has exactly this configuration": differing or unconfigured,
        f"every node runs Talos {wanted}": versions or unconfigured,
    }
    encrypted = observation.bundle and _is_encrypted(context)
    return (
        Check("the secrets bundle exists, encrypted", encrypted, context.secrets.path.name),
        *(Check(name, not failing, count(len(nodes), failing)) for name, failing in checks.items()),
    )


def _is_encrypted(context: RunContext) -> bool:
    """Whether the bundle's file carries SOPS metadata and no plaintext private key."""
    text = read_text(context.secrets.path)
    return "sops:" in text and "PRIVATE KEY" not in text and not context.redactor.leaks(text)


class Claimed(str):
    """The fingerprint of the bundle that has the claim."""

    __slots__ = ()


def fingerprint(bundle: SecretsBundle) -> str:
    """A public name of a bundle: a hash of the cluster's id, which stays when authorities are rotated."""
    return hashlib.sha256(bundle.cluster_id.encode()).hexdigest()[:16]


def claim_in(description: str) -> str:
    """The fingerprint in the notes of a VM; "" if there is none."""
    match = _CLAIM.search(description)
    return match.group(1) if match else ""


def claimed_by(context: RunContext) -> str:
    """The fingerprint of the bundle that has claimed the cluster; "" if none has."""
    return claim_in(str(_first_vm(context).get("description", "")))


def _first_vm(context: RunContext) -> dict[str, object]:
    node = context.platform.control_planes[0]
    try:
        return context.proxmox(context.platform.endpoint_of(node).name).config(node.host, node.vmid)
    except NotFound:
        return {}


def claim(context: RunContext) -> Claimed:
    """Claim the cluster for this checkout's bundle, unless it has the claim already.

    Raises:
        Refused: another bundle has the claim.
        Conflict: somebody else keeps changing the VM.
    """
    node, own = context.platform.control_planes[0], fingerprint(context.secrets.bundle())
    client = context.proxmox(context.platform.endpoint_of(node).name)
    for attempt in range(TRIES):
        config = client.config(node.host, node.vmid)
        notes = str(config.get("description", "")).rstrip("\n")
        if claim_in(notes):
            require_claim(claim_in(notes), own, str(context.secrets.path))
            break
        text = f"{notes}\n{MARK} {own}" if notes else f"{MARK} {own}"
        try:
            client.configure(node.host, node.vmid, {"description": text}, digest=config["digest"])
            break
        except Conflict:
            if attempt == TRIES - 1:
                raise
    return Claimed(own)


def require_claim(claimed: str, own: str, path: str) -> None:
    """Require that a claim is this checkout's.

    Args:
        claimed: the fingerprint that has the claim; "" if none has.
        own: that of this checkout's bundle; "" if it has none.
        path: the bundle's file.

    Raises:
        Refused: another bundle has the claim.
    """
    if claimed and claimed != own:
        raise Refused(
            f"this cluster is made from the secrets bundle {claimed}, "
            + (f"and {path} is {own}" if own else "which is not here"),
            cause="another checkout or another machine has made the bundle; two bundles would be two clusters",
            remedy=f"bring that bundle here as {path} (secrets.bundle in the params), in place of an unused one; "
            f'to begin again, remove the line "{MARK} {claimed}" from the notes of the first control plane\'s VM',
        )
