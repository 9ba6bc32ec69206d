"""Reads what runs; pulls, replaces, drains and upgrades; each action can be killed and done again."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from fluobook import gitops, params
from fluobook.clients.kube import Kube
from fluobook.clients.talos.resources import MACHINE_CONFIG, MANIFESTS
from fluobook.context import RunContext
from fluobook.errors import PHASE, TALOSCTL, FluobookError, ParamsError, Refused, Rejected, Unreachable
from fluobook.files import read_text, write_text
from fluobook.kubernetes import manifests, removed
from fluobook.kubernetes.removed import KUBELET, PLACES
from fluobook.machine.contracts import fold, value_at, with_value
from fluobook.machine.documents import Document, dump, load
from fluobook.params import Node
from fluobook.params import reading as files
from fluobook.params.versions import minor_of
from fluobook.stages import health
from fluobook.stages.apply_talos_config.documents import Configurations
from fluobook.stages.bootstrap_kubernetes.complaints import CERTAIN, field_of, serious
from fluobook.stages.core import ssa
from fluobook.stages.core.check import Check, count, run_groups
from fluobook.stages.core.cluster import PATIENCE, Missing, api, cluster, read_etcd
from fluobook.stages.core.executor import Reporter, in_parallel
from fluobook.stages.core.plan import Action
from fluobook.stages.core.readiness import has_condition, listed
from fluobook.stages.day_two import drain
from fluobook.stages.upgrade_kubernetes.plan import (
    CONTROL_PLANE,
    NAME,
    PROGRAMS,
    NodeState,
    Observation,
    ParamsFile,
    version_of,
)
from fluobook.waiting import wait_until

Obj = Mapping[str, Any]
VERSION = ("platform", "versions", "kubernetes")
SERVER = CONTROL_PLANE[0]
LIVE = "NO_REBOOT"
"""How Talos takes a configuration that needs no restart."""
MANAGER = "talos"
"""Talos' field manager for its own objects."""


def place_of(component: str) -> str:
    """Where a machine configuration has the image of a component, in its v1alpha1 document."""
    return "machine.kubelet.image" if component == KUBELET else f"cluster.{PLACES[component]}.image"


def images_in(documents: Iterable[Document]) -> dict[str, str]:
    """The images of Kubernetes in a machine configuration, by component."""
    main = fold(documents)
    images = {component: value_at(main, place_of(component)) for component in (*PLACES, KUBELET)}
    return {component: str(image) for component, image in images.items() if image}


def observe(context: RunContext) -> Observation:
    """Ask every node and the cluster, and read the tree and the params file."""
    platform, kube = context.platform, _api(context)
    if isinstance(kube, Missing):
        return Observation(missing=kube)
    configurations = Configurations.of(context)
    wanted = {node.name: images_in(load(configurations.text(node))) for node in platform.nodes}
    nodes = {node["metadata"]["name"]: node for node in kube.list("v1", "Node")}
    pods = kube.list("v1", "Pod")
    configured = dict(
        zip(
            [node.name for node in platform.nodes],
            in_parallel(lambda node: _active(context, node), platform.nodes, width=len(platform.nodes)),
            strict=True,
        )
    )
    states = {
        node.name: NodeState(images_in(active[1]), kubernetes_versions(node, nodes.get(node.name), pods), active[0])
        for node in platform.nodes
        if (active := configured[node.name])
    }
    observation = Observation(
        wanted,
        None,
        states,
        frozenset(name for name, node in nodes.items() if drain.cordoned_by(node) == NAME),
        params=params_file(context),
        others=drain.cordoned_by_others(nodes.values(), NAME),
        manifests=tuple(ssa.title(each.wanted) for each in _manifests(context, kube) if each.differs),
    )
    parts, kubelets = observation.todo(platform)
    if not kubelets and not any(parts.values()):
        return observation
    load_, seconds = drain.read_load(kube), platform.deadlines.drain
    return Observation(
        wanted,
        None,
        states,
        observation.cordoned,
        {node.name: tuple(drain.blockers(node.name, load_, seconds=seconds)) for node in kubelets},
        _programs(pods),
        gitops.chart_source(gitops.for_phase(platform, gitops.of(platform, context.root)), "cilium").version,
        tuple(_removed(context, kube, {name: active[1] for name, active in configured.items() if active})),
        observation.params,
        observation.manifests,
        observation.others,
    )


def _api(context: RunContext) -> Kube | Missing:
    """The cluster's API. Where etcd runs there is one: it is waited for, as its only server may be restarting.

    Raises:
        DeadlineExceeded: it does not answer in `PATIENCE` seconds.
        Rejected: a server of it keeps ending with an error that no waiting removes.
    """
    kube = api(context)
    if not isinstance(kube, Missing) or not context.secrets.has_bundle():
        return kube
    planes = [n for n in context.platform.control_planes if read_etcd(context.talos.client(n)).status]
    logs = {node.name: set[str]() for node in planes}

    def step() -> Kube | None:
        if isinstance(kube := api(context), Missing):
            said = [f"{n.name}: {text}" for n in planes if (text := _complaint(context, n, SERVER, logs[n.name]))]
            raise FluobookError("; ".join(said) or kube.reason)
        return kube

    return (
        kube
        if not planes
        else wait_until(
            step,
            what="the Kubernetes API to answer",
            timeout=PATIENCE,
            cancellation=context.cancellation,
            final=(Rejected,),
            remedy=f"fluobook run {PHASE} --only diagnose",
        )
    )


def _active(context: RunContext, node: Node) -> tuple[str, list[Document]] | None:
    """A node's version of Talos, and its machine configuration; None if it does not answer."""
    client = context.talos.client(node, "os:admin")
    try:
        return client.version().tag, load(str(client.get(MACHINE_CONFIG).spec))
    except FluobookError:
        return None


def kubernetes_versions(node: Node, kubelet: Obj | None, pods: Iterable[Obj]) -> dict[str, str]:
    """The versions that run on a node: of the static pods that are ready, and of the kubelet."""
    static = {f"{part}-{node.name}": part for part in CONTROL_PLANE}
    running = {
        static[pod["metadata"]["name"]]: version_of(pod["spec"]["containers"][0].get("image", ""))
        for pod in pods
        if pod["metadata"]["name"] in static
        and pod["metadata"].get("namespace") == "kube-system"
        and has_condition(pod, "Ready")
    }
    if kubelet:
        running[KUBELET] = str(value_at(kubelet, "status.nodeInfo.kubeletVersion") or "").removeprefix("v")
    return running


def _programs(pods: Iterable[Obj]) -> dict[str, frozenset[str]]:
    """The versions that run, of the programs in the matrix."""
    images = {c.get("image", "").partition("@")[0] for pod in pods for c in pod["spec"]["containers"]}
    named = {image.rpartition(":")[0]: set[str]() for image in images}
    for image in images:
        named[image.rpartition(":")[0]].add(image.rpartition(":")[2].removeprefix("v"))
    return {
        program: frozenset(versions)
        for program, suffix in PROGRAMS.items()
        for name, versions in named.items()
        if name.endswith(f"/{suffix}")
    }


def _removed(context: RunContext, kube: Kube, active: Mapping[str, Sequence[Document]]) -> Iterator[str]:
    """What the new version no longer has: in machine configurations, in the tree, and in the cluster."""
    platform, minor = context.platform, minor_of(context.platform.versions.kubernetes)
    by_problem: dict[str, list[str]] = {}
    for name, documents in active.items():
        for problem in removed.in_configuration(fold(documents), minor):
            by_problem.setdefault(problem, []).append(name)
    yield from (f"{', '.join(names)}: {problem}" for problem, names in by_problem.items())
    gone = set(removed.apis(minor))
    tree = gitops.for_phase(platform, gitops.of(platform, context.root))
    for app in tree.applications:
        for document in tree.deployed_by(app):
            if (api_version := str(document.data.get("apiVersion")), document.kind) in gone:
                place = str(document.at()).removeprefix(f"{context.root}/")
                yield f"{place}: {document.kind} of {api_version}"
    for api_version, kind in sorted(gone):
        for obj in listed(kube, api_version, kind):
            yield f"in the cluster: {kind} {obj['metadata']['name']} of {api_version}"


def params_file(context: RunContext) -> ParamsFile | None:
    """The params file of the phase, if it says another version of Kubernetes; it may have been given by --set."""
    wanted, root = context.platform.versions.kubernetes, context.root
    path = params.files(root).get(context.phase)
    try:
        said = params.load(context.phase, root=root).platform if path else None
    except ParamsError:
        said = None
    if path is None or said is None or said.cluster.name != context.platform.cluster.name:
        return ParamsFile()
    if said.versions.kubernetes == wanted:
        return None
    name, text = path.relative_to(root).as_posix(), read_text(path)
    changed = files.with_value(text, VERSION, wanted)
    lines = difflib.unified_diff(text.splitlines(), changed.splitlines(), name, name, lineterm="", n=0)
    return ParamsFile(name, said.versions.kubernetes, "\n".join(lines), context.policy.writes_params)


def _manifests(context: RunContext, kube: Kube) -> list[ssa.Compared]:
    """Talos' own objects beside the live ones, without inline manifests and what Argo CD looks after.

    An inline manifest is what the network began with; Argo CD may have changed or pruned what is in it since.
    """
    client = context.talos.client(context.platform.control_planes[0], "os:admin")
    main = fold(load(str(client.get(MACHINE_CONFIG).spec)))
    texts = [str(entry.get("contents") or "") for entry in value_at(main, "cluster.inlineManifests") or ()]
    inline = {_identity(obj) for text in texts for obj in manifests.load(text)}
    objects: list[dict[str, Any]] = []
    for resource in client.list(MANIFESTS):
        objects += resource.spec.get("items") or () if isinstance(resource.spec, dict) else resource.spec
    own = [obj for obj in objects if _identity(obj) not in inline]
    compared = in_parallel(partial(ssa.compare, kube, manager=MANAGER), own)
    return [each for each in compared if ssa.TRACKING not in (value_at(each.live, "metadata.annotations") or {})]


def _identity(obj: Obj) -> tuple[str, str, str]:
    return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    if action.verb == "check":
        health.wait_between(context, report)
        return None
    if action.id == "params":
        path = params.files(context.root)[context.phase]
        write_text(path, files.with_value(read_text(path), VERSION, action.data["version"]))
        return {"file": action.object}
    if action.id == "manifests":
        applied = [each for each in _manifests(context, context.kube()) if each.differs]
        for each in applied:
            ssa.apply(context.kube(), each.wanted, manager=MANAGER)
        return {"applied": [each.title for each in applied]}
    return _on_node(context, context.platform.node(action.data["node"]), action, report)


def _on_node(context: RunContext, node: Node, action: Action, report: Reporter) -> Mapping[str, Any]:
    """Do one action on a node."""
    if action.verb == "drain":
        drain.cordon(context.kube(), node.name, NAME)
        return {"evicted": drain.drain(context, node.name, report)}
    if action.verb == "uncordon":
        drain.until_ready(context, node)
        drain.uncordon(context.kube(), node.name)
        return {}
    images = action.data["images"]
    if action.verb == "pull":
        client = context.talos.client(node, "os:operator")
        for part, image in images.items():
            report(f"fetches {image}")
            client.pull(image, timeout=context.platform.deadlines.upgrade, pods=part != KUBELET)
        return {"images": len(images)}
    if action.verb == "replace":
        _others_ready(context, node, next(iter(images)))
    report.evidence(mode=set_images(context, node, images))
    return wait_for(context, node, images, report)


def _others_ready(context: RunContext, node: Node, part: str) -> None:
    """Wait until a part of the control plane is ready on all other nodes, so that one at most is away."""
    others = [other for other in context.platform.control_planes if other.name != node.name]

    def step() -> bool | None:
        pods = context.kube().list("v1", "Pod", "kube-system")
        if missing := [other.name for other in others if not kubernetes_versions(other, None, pods).get(part)]:
            raise FluobookError(f"it is not ready on {', '.join(missing)}")
        return True

    context.wait_until("gate", f"{part} to be ready on the other control planes", step, interval=0.5)


def set_images(context: RunContext, node: Node, images: Mapping[str, str]) -> str:
    """Change images in the node's own configuration, and nothing else in it; how Talos took it, "" if it has them.

    Raises:
        Refused: Talos would restart the node for it.
    """
    client = context.talos.client(node, "os:admin")
    documents = load(str(client.get(MACHINE_CONFIG).spec))
    if images.items() <= images_in(documents).items():
        return ""
    for part, image in images.items():
        documents = with_value(documents, place_of(part), image)
    text = dump(documents)
    if (mode := client.apply_configuration(text, dry_run=True).mode) != LIVE:
        raise Refused(
            f"Talos would not take the images of {node.name} without a restart ({mode})",
            cause="another change of its configuration waits for a restart",
            remedy=f"restart it by hand (`{TALOSCTL} -n {node.address} reboot`), then run {NAME} again",
        )
    return client.apply_configuration(text).mode


def wait_for(context: RunContext, node: Node, images: Mapping[str, str], report: Reporter) -> Mapping[str, Any]:
    """Wait until what these images are of runs, and is ready.

    Raises:
        DeadlineExceeded: it did not come up in time; nothing else is changed.
        Rejected: its program keeps ending with an error that no waiting removes.
    """
    part, logs = next(iter(images)), set[str]()
    wanted = version_of(images[part])
    name = f"the kubelet of {node.name}" if part == KUBELET else f"{part} of {node.name}"

    def step() -> bool | None:
        kube, why = context.kube(), "it is not ready"
        runs = None
        try:
            runs = kubernetes_versions(
                node, kube.get("v1", "Node", node.name), kube.list("v1", "Pod", "kube-system")
            ).get(part)
        except Unreachable as error:  # the only API server may be what is waited for
            why = error.message
        if runs == wanted:
            return True
        said = "" if runs else _complaint(context, node, part, logs)
        why = "; its log says: ".join(filter(None, (f"{runs} runs" if runs else why, said)))
        report(why)
        raise FluobookError(why)

    context.wait_until("upgrade", f"{name} to run {wanted}", step, interval=0.5, final=(Rejected,))
    if part == KUBELET:
        drain.until_ready(context, node)
    return {"version": wanted}


def _complaint(context: RunContext, node: Node, part: str, logs: set[str]) -> str:
    """What the log of a static pod names as a problem, "" for nothing.

    Args:
        context: the platform.
        node: where it is.
        part: its name.
        logs: the logs so far that end in an error which no waiting removes.

    Raises:
        Rejected: another instance of it has ended with such an error.
    """
    try:
        log = context.talos.client(node).logs(part)
    except FluobookError:
        return ""
    if not CERTAIN.search(message := serious(log)):
        return message
    logs.add(log)
    if len(logs) > 1:
        raise Rejected(
            f"{part} of {node.name} does not come up: {message}",
            system="talos",
            cause="wrong in its machine configuration: "
            f"{field_of(part, message) or 'a field that its log does not name'}",
            remedy=f"take it out of the node's configuration (`{TALOSCTL} -n {node.address} edit machineconfig`) and "
            f"out of talos/patches, then run {NAME} again",
        )
    return message


def verify(context: RunContext, observation: Observation) -> Sequence[Check]:
    """Check that everything runs the wanted version, no node is left cordoned, the file says so, the gates pass.

    Raises:
        StageMissing: there is no cluster yet.
    """
    cluster(context)
    platform, again = context.platform, f"fluobook run {PHASE} {NAME}"
    wanted, (parts, kubelets) = platform.versions.kubernetes, observation.todo(platform)
    others = [f"{part} on {node.name}" for part, nodes in parts.items() for node in nodes]
    file, total = observation.params, len(CONTROL_PLANE) * len(platform.control_planes)
    unsaid = bool(file and file.name and file.writes)
    checks = [
        Check(f"every part of the control plane runs {wanted}", not others, count(total, others), again),
        Check(
            f"every kubelet runs {wanted}",
            not kubelets,
            count(len(platform.nodes), [node.name for node in kubelets]),
            again,
        ),
        Check(
            "no node is left cordoned by the upgrade",
            not observation.cordoned,
            count(len(platform.nodes), sorted(observation.cordoned)),
            again,
        ),
        Check(
            "the params file says the version",
            not unsaid,
            f"{file.name} says {file.says}" if file and unsaid else f"Kubernetes {wanted}",
            again,
        ),
        Check(
            "Talos' own objects are as it would apply them",
            not observation.manifests,
            ", ".join(observation.manifests) or "nothing differs",
            again,
        ),
    ]
    return [*checks, *run_groups(context, health.BETWEEN)]
