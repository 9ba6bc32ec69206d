"""Tables that follow the cluster while a person watches, and that are shown once when nobody does.

The threads that receive events only keep and count them; another one makes the tables, twice a second at most. So a
thousand events a second cost a thousand increments and two tables.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from fluobook.clients.hubble import Address, Hubble
from fluobook.clients.kube import Kube
from fluobook.context import RunContext
from fluobook.display.kernel import interactive
from fluobook.display.live import Live
from fluobook.display.table import Picture, Table
from fluobook.errors import KUBECTL, TALOSCTL, FluobookError, NotFound, StageMissing
from fluobook.gitops.documents import value_under
from fluobook.kubernetes.policies import Policies
from fluobook.params import Node, Platform
from fluobook.stages.approve_csrs import requests_of
from fluobook.stages.core.check import Check, CheckGroup, count, run_groups
from fluobook.stages.core.cluster import cluster
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.core.readiness import certificates_check, has_condition
from fluobook.stages.observe import tables
from fluobook.stages.observe.tables import Machine, Tally
from fluobook.waiting import Backoff

SYNC_SECONDS = 10.0
"""Seconds that `to_frame` waits for the first list."""
AT_ONCE = 0.1
"""Seconds of this thread's work that one update may take to evaluate objects; the others follow with the next ones."""
MACHINES_EVERY = 20.0
"""Seconds from one reading of Talos and the kubelets to the next."""
IDLE = 5.0
"""Seconds at most before the relay is called again."""
RELAY, NAMESPACE, PORT = "hubble-relay", "kube-system", 80
ALERTS = "alerts reach somebody"
_ALERTMANAGER = ("spec", "source", "helm", "valuesObject", "alertmanager", "config")
REMEMBERED = 500
"""Flows of the past that are read at first."""


class Draw(Protocol):
    """Makes a table of objects; live while a person watches, and then in parts of so many seconds."""

    def __call__(self, objects: Iterable[Mapping[str, Any]], *, live: bool = False, seconds: float = math.inf) -> Table:
        """The table."""


class Closable(Protocol):
    """What `shared` keeps."""

    @property
    def closed(self) -> bool:
        """Whether it has ended."""

    def close(self) -> None:
        """End it."""


Kept = TypeVar("Kept", bound=Closable)
_open: dict[str, tuple[RunContext, Any]] = {}
"""What is live in this kernel: a cell that runs again shows the same table."""


def shared(name: str, context: RunContext, make: Callable[[], Kept]) -> Kept:
    """What is live under a name already, or else a new one in place of that of another runbook."""
    if not interactive():
        return make()
    owner, kept = _open.get(name, (None, None))
    if kept is not None and (owner is not context or kept.closed):
        kept.close()
        kept = None
    if kept is None:
        kept = make()
        _open[name] = context, kept
    return cast("Kept", kept)


def watch_nodes(context: RunContext) -> Live:
    """The cluster's nodes."""
    kube = cluster(context)
    machines = Machines(context)
    draw = tables.Nodes(context.platform, machines.reports)
    return shared("nodes", context, lambda: follow(kube, "v1", "Node", draw, machines.read))


def watch_csrs(context: RunContext) -> Live:
    """Certificate requests and how stage 4 evaluates them."""
    kube, draw = cluster(context), tables.Csrs(context.platform)
    kind = "certificates.k8s.io/v1", "CertificateSigningRequest"
    return shared("csrs", context, lambda: follow(kube, *kind, draw))


def watch_applications(context: RunContext) -> Live:
    """Argo CD's Applications, wave by wave.

    Raises:
        StageMissing: Argo CD is not installed yet.
    """
    kube, kind = cluster(context), ("argoproj.io/v1alpha1", "Application")
    _require_argocd(kube)
    return shared("applications", context, lambda: follow(kube, *kind, tables.Applications()))


def _require_argocd(kube: Kube) -> None:
    try:
        kube.kind("argoproj.io/v1alpha1", "Application")
    except NotFound:
        raise StageMissing("Argo CD is not installed", remedy="run the stage install-argocd first") from None


def follow(kube: Kube, api_version: str, kind: str, draw: Draw, beside: Callable[[], object] | None = None) -> Live:
    """The table of all objects of a kind: live if a person watches, else as they are now.

    Args:
        kube: the cluster.
        api_version: of the kind.
        kind: the kind.
        draw: makes the table.
        beside: reads what the objects do not tell, again and again while the table is live.
    """
    if not interactive():
        if beside:
            beside()
        drawn = draw(kube.list(api_version, kind))
        return Live(lambda: drawn, live=False)

    def table(seconds: float = AT_ONCE) -> Table:
        objects = informer.items()
        drawn = draw(objects, live=True, seconds=seconds)
        if len(drawn.rows) < len(objects):
            live.touch()
        reading = "" if informer.synced.is_set() else "reading"
        lost = f"connection lost: {informer.error.message}" if informer.error else ""
        return replace(drawn, note="\n".join(filter(None, (drawn.note, reading, lost))))

    def whole() -> Table:
        informer.synced.wait(SYNC_SECONDS)
        return table(math.inf)

    live = Live(table, live=True, whole=whole)
    informer = kube.inform(api_version, kind, lambda _: live.touch(), on_error=lambda _: live.touch())
    live.on_close.append(lambda: informer.stop(0))
    if beside:
        live.repeat(beside, MACHINES_EVERY)
    return live


class Machines:
    """What Talos and the kubelet of each declared node report."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.reports: dict[str, Machine] = {}

    def read(self) -> None:
        """Ask every node."""
        in_parallel(self._read, self._context.platform.nodes, width=16)

    def _read(self, node: Node) -> None:
        stage, days = "", None
        with suppress(FluobookError):
            stage = self._context.talos.client(node).machine_stage().stage
        with suppress(FluobookError):
            days = self._context.kube().serving_certificate_days(node.name)
        self.reports[node.name] = Machine(stage, days)


@contextmanager
def relay(kube: Kube, platform: Platform) -> Iterator[Hubble]:
    """Hubble's relay: at the address to which the params map it, else through the Kubernetes API.

    Raises:
        StageMissing: the cluster has no relay yet.
        Unreachable: it does not answer.
    """
    name = f"{RELAY}.{NAMESPACE}"
    host, port = platform.route(name, PORT)
    with ExitStack() as stack:
        if (host, port) == (name, PORT):
            try:
                forward = kube.forward(RELAY, NAMESPACE, PORT)
            except NotFound:
                raise StageMissing("there is no Hubble relay", remedy="run the stage root-application first") from None
            host, port = stack.enter_context(forward).address
        yield stack.enter_context(closing(Hubble(Address(host, port, name))))


def watch_flows(context: RunContext, tree: Callable[[], Policies[Any]], *, stream: bool = False) -> Live:
    """Flows as they happen if a person watches; else a summary that is the same in every run.

    Args:
        context: the cluster.
        tree: the policies of the platform's tree, which say what drops are expected.
        stream: the latest flows; else the paths with the most of them.
    """
    kube = cluster(context)
    if not interactive():
        return _flows_summary(context, kube)
    reader = shared("flows", context, lambda: FlowReader(partial(relay, kube, context.platform), tree))
    return shared("stream" if stream else "top talkers", context, reader.latest if stream else reader.top)


class FlowReader:
    """Reads flows in a thread while a table of them is open.

    Args:
        connect: connects to the relay.
        tree: the policies of the platform's tree.
    """

    def __init__(
        self, connect: Callable[[], AbstractContextManager[Hubble]], tree: Callable[[], Policies[Any]]
    ) -> None:
        self.tally = Tally(lambda flow: tables.decision(tree(), flow))
        self._connect, self._error, self._lives = connect, "", list[Live]()
        self._connected = ExitStack()
        self._hubble = self._connected.enter_context(connect())
        threading.Thread(target=self._read, name="hubble flows", daemon=True).start()

    @property
    def closed(self) -> bool:
        """Whether every table is closed."""
        return bool(self._lives) and all(live.closed for live in self._lives)

    def close(self) -> None:
        """Close every table."""
        for live in self._lives:
            live.close()

    def top(self) -> Live:
        """The paths with the most flows."""
        return self._live(self.tally.table)

    def latest(self) -> Live:
        """The flows as they come."""
        return self._live(self.tally.stream)

    def _live(self, draw: Callable[[Sequence[str]], Table]) -> Live:
        live = Live(lambda: draw([self._error]), live=True)
        live.on_close.append(lambda: self._connected.close() if self.closed else None)
        self._lives.append(live)
        return live

    def _read(self) -> None:
        backoff, last = Backoff(1.0, IDLE), REMEMBERED
        while not self.closed:
            try:
                for flow in self._hubble.flows(last=last, follow=True, lost=self._lost):
                    self._error = ""
                    self.tally.add(flow)
                    for live in self._lives:
                        live.touch()
            except FluobookError as error:
                self._error = f"connection lost: {error.message}"
            last = 0  # those that it has kept were counted
            time.sleep(backoff.next())
            self._connected.close()
            with suppress(FluobookError):
                self._hubble = self._connected.enter_context(self._connect())

    def _lost(self, number: int) -> None:
        self.tally.lost += number


def waves(context: RunContext) -> Picture:
    """The waves of Argo CD's Applications as they are now.

    Raises:
        StageMissing: there is no cluster yet, or no Argo CD.
    """
    kube = cluster(context)
    _require_argocd(kube)
    return _drawn(tables.waves_picture(kube.list("argoproj.io/v1alpha1", "Application")))


def traffic(context: RunContext) -> Picture:
    """Who talked to whom in the flows that the relay remembers.

    Raises:
        StageMissing: there is no cluster yet, or no relay.
    """
    with relay(cluster(context), context.platform) as hubble:
        return _drawn(tables.traffic_picture(read_flows(hubble).counts()))


def _drawn(picture: Picture) -> Picture:
    """A record has the text alone: what draws the diagram is only in JupyterLab."""
    return picture if interactive() else Picture(picture.text)


def _flows_summary(context: RunContext, kube: Kube) -> Live:
    with relay(kube, context.platform) as hubble:
        counts = read_flows(hubble).counts()
        silent = silent_nodes(context.platform, hubble.nodes())
    context.journal.write("flows", stage="observe", paths=[[*path, number] for path, number in counts.items()])
    rows = [
        ["the relay answers", "yes"],
        ["it knows the nodes", count(len(context.platform.nodes), silent)],
        ["flows are seen", "yes" if counts else "none yet"],
    ]
    note = "JupyterLab shows the flows live; the journal lists their paths"
    summary = Table("Hubble flows", ["subject", "result"], rows, note=note)
    return Live(lambda: summary, live=False)


def read_flows(hubble: Hubble) -> Tally:
    """The flows that the relay remembers."""
    tally = Tally()
    for flow in hubble.flows(last=REMEMBERED):
        tally.add(flow)
    return tally


def silent_nodes(platform: Platform, reporting: Iterable[str]) -> list[str]:
    """The nodes of the params that do not report to Hubble; it may put the cluster's name before theirs."""
    known = {name.rpartition("/")[2] for name in reporting}
    return [node.name for node in platform.nodes if node.name not in known]


def verify(context: RunContext) -> Sequence[Check]:
    """The checks of stage 9.

    Raises:
        StageMissing: there is no cluster yet.
    """
    cluster(context)
    return run_groups(context, [CheckGroup(name, partial(_check, name)) for name in CHECKS])


def receivers_check(kube: Kube) -> Check:
    """Whether Alertmanager has a receiver. Advisory: Grafana shows alerts too, and nobody is woken by a trial."""
    try:
        apps = kube.list("argoproj.io/v1alpha1", "Application", "argocd")
    except NotFound:
        apps = []
    values = [value_under(app, _ALERTMANAGER) for app in apps if value_under(app, _ALERTMANAGER)]
    names = [entry["name"] for config in values for entry in config.get("receivers") or () if len(entry) > 1]
    result = ", ".join(names) or ("no receiver" if values else "no Application has an Alertmanager")
    return Check(ALERTS, bool(names), result, "set alerts.receivers: docs/how-to/alerts.md", advisory=True)


def _check(name: str, context: RunContext) -> Iterator[Check]:
    evaluate, remedy = CHECKS[name]
    result = evaluate(context)
    yield result if isinstance(result, Check) else Check(name, *result, remedy)


def _nodes(context: RunContext) -> tuple[bool, str]:
    nodes = context.platform.nodes
    ready = {node["metadata"]["name"] for node in context.kube().list("v1", "Node") if has_condition(node, "Ready")}
    unready = [node.name for node in nodes if node.name not in ready]
    return not unready, count(len(nodes), unready)


def _requests(context: RunContext) -> tuple[bool, str]:
    pending = [request for request in requests_of(context) if request.pending]
    own = sorted({request.node for request in pending if request.matches})
    foreign = sorted({request.node or "nobody" for request in pending if not request.matches})
    result = f"pending for {', '.join(own)}" if own else "none is pending"
    return not own, result + (f"; not managed by fluobook: {', '.join(foreign)}" if foreign else "")


def _applications(context: RunContext) -> tuple[bool, str]:
    apps = context.kube().list("argoproj.io/v1alpha1", "Application", "argocd")
    statuses = {app["metadata"]["name"]: ", ".join(tables.status_of(app)) for app in apps if not tables.is_healthy(app)}
    unhealthy = [f"{name} ({status})" for name, status in statuses.items()]
    return bool(apps) and not unhealthy, count(len(apps), unhealthy) if apps else "there is none"


def _flows(context: RunContext) -> tuple[bool, str]:
    platform = context.platform
    with relay(context.kube(), platform) as hubble:
        silent = silent_nodes(platform, hubble.nodes())
        flows = read_flows(hubble).counts()
    result = f"nodes known to it: {count(len(platform.nodes), silent)}" if flows else "it has no flows"
    return bool(flows) and not silent, result


def _access_files(context: RunContext) -> tuple[bool, str]:
    files = context.secrets.access_files(context.platform, context.home)
    results = [f"{name} {file.problem or file.remaining}" for name, file in files.items()]
    return not any(file.problem for file in files.values()), "; ".join(results)


CHECKS: dict[str, tuple[Callable[[RunContext], tuple[bool, str] | Check], str]] = {
    "every node is Ready": (_nodes, f"{KUBECTL} describe node; {TALOSCTL} -n ADDRESS dmesg"),
    "no declared node waits for a certificate": (
        _requests,
        f"run the stage approve-csrs; then inspect kubelet-csr-approver: {KUBECTL} -n kube-system get pods",
    ),
    "every Application is Synced and Healthy": (
        _applications,
        "run the stage root-application again: it waits, and shows what each one waits for",
    ),
    "the Hubble relay has flows of every node": (
        _flows,
        f"{KUBECTL} -n kube-system rollout status deployment/hubble-relay",
    ),
    "kubeconfig and talosconfig are valid for more than 30 days": (
        _access_files,
        "run the stage bootstrap-kubernetes: it writes them again",
    ),
    "certificates are issued": (lambda context: certificates_check(context.kube()), ""),
    ALERTS: (lambda context: receivers_check(context.kube()), ""),
}
"""Each check's evaluation and remedy; the evaluation of an advisory check makes the check itself."""
