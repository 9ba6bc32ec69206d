"""Tables that follow the cluster while a person watches, and that are shown once when nobody does.

The thread that receives events only counts them; the cell's own thread draws, twice a second at most. So a thousand
events a second cost a thousand increments and two tables.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from fluobook.clients.hubble import Address, Hubble
from fluobook.clients.kube import Kube
from fluobook.context import RunContext
from fluobook.display.kernel import interactive
from fluobook.display.live import REPAINTS_PER_SECOND, Live
from fluobook.display.table import Table
from fluobook.errors import FluobookError, NotFound, StageMissing
from fluobook.gitops.documents import value_under
from fluobook.params import Platform
from fluobook.stages.approve_csrs import requests_of
from fluobook.stages.core.check import Check, CheckGroup, count, run_groups
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.readiness import certificates_check, has_condition
from fluobook.stages.observe import tables
from fluobook.stages.observe.tables import Tally

SECONDS = 30.0
"""How long a cell watches by default."""
IDLE = 5.0
"""Seconds after which ages are drawn again although nothing happened."""
SYNC_SECONDS = 10.0
"""Seconds that the first list may take before an empty table is shown."""
RELAY, NAMESPACE, PORT = "hubble-relay", "kube-system", 80
ALERTS = "alerts reach somebody"
_ALERTMANAGER = ("spec", "source", "helm", "valuesObject", "alertmanager", "config")
REMEMBERED = 500
"""Flows that are requested when nobody watches."""


class Draw(Protocol):
    """Makes a table of objects; `now` is given while a person watches."""

    def __call__(self, objects: Iterable[Mapping[str, Any]], *, now: datetime | None = None) -> Table:
        """The table."""


class Pulse:
    """The events that one thread receives, and the repaints that another one makes of them."""

    def __init__(self) -> None:
        self.events = 0
        self.error = ""
        self._changed = threading.Event()

    def beat(self, _change: object = None) -> None:
        """Something changed."""
        self.events += 1
        self.error = ""
        if not self._changed.is_set():  # setting it takes a lock
            self._changed.set()

    def disconnected(self, error: FluobookError) -> None:
        """The connection is lost; the client goes on trying."""
        self.error = error.message
        self._changed.set()

    def drive(self, draw: Callable[[], None], seconds: float) -> None:
        """Draw whenever something changed, for some seconds; a person ends it early by interrupting the cell."""
        until = time.monotonic() + seconds
        with suppress(KeyboardInterrupt):
            while (left := until - time.monotonic()) > 0:
                self._changed.clear()
                draw()
                time.sleep(min(1 / REPAINTS_PER_SECOND, left))
                self._changed.wait(min(IDLE, max(0, until - time.monotonic())))

    def notes(self) -> tuple[str, ...]:
        """The lines below a table that somebody watches."""
        return f"{self.events} events", f"connection lost: {self.error}" if self.error else ""


def cluster(context: RunContext) -> Kube:
    """The cluster's API.

    Raises:
        StageMissing: there is no cluster yet.
    """
    kube = api(context)
    if isinstance(kube, Missing):
        raise StageMissing(f"there is no cluster to watch: {kube.reason}", remedy=f"run the stage {kube.stage} first")
    return kube


def watch_nodes(context: RunContext, *, seconds: float = SECONDS) -> None:
    """Show the cluster's nodes, for some seconds if a person watches."""
    follow(cluster(context), "v1", "Node", partial(tables.nodes, context.platform), seconds=seconds)


def watch_csrs(context: RunContext, *, seconds: float = SECONDS) -> None:
    """Show certificate requests and how stage 4 evaluates them."""
    draw = partial(tables.csrs, context.platform)
    follow(cluster(context), "certificates.k8s.io/v1", "CertificateSigningRequest", draw, seconds=seconds)


def watch_applications(context: RunContext, *, seconds: float = SECONDS) -> None:
    """Show Argo CD's Applications, wave by wave.

    Raises:
        StageMissing: Argo CD is not installed yet.
    """
    kube = cluster(context)
    try:
        kube.kind("argoproj.io/v1alpha1", "Application")
    except NotFound:
        raise StageMissing("Argo CD is not installed", remedy="run the stage install-argocd first") from None
    follow(kube, "argoproj.io/v1alpha1", "Application", tables.applications, seconds=seconds)


def follow(kube: Kube, api_version: str, kind: str, draw: Draw, *, seconds: float) -> None:
    """Show all objects of a kind: live for some seconds if a person watches, else once."""
    if not interactive():
        _show_once(draw(kube.list(api_version, kind)))
        return
    pulse = Pulse()
    informer = kube.inform(api_version, kind, pulse.beat, on_error=pulse.disconnected)
    try:
        informer.synced.wait(min(SYNC_SECONDS, seconds))

        def table() -> Table:
            drawn = draw(informer.items(), now=datetime.now(UTC))
            return replace(drawn, note="\n".join(filter(None, (drawn.note, *pulse.notes()))))

        with Live(table, live=True) as live:
            pulse.drive(live.paint, seconds)
    finally:
        informer.stop()


def _show_once(table: Table) -> None:
    with Live(lambda: table, live=False):
        pass


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


def watch_flows(context: RunContext, *, seconds: float = SECONDS) -> None:
    """Show flows as they happen, for some seconds if a person watches; else a summary that is the same in every run."""
    with relay(cluster(context), context.platform) as hubble:
        if interactive():
            _follow_flows(hubble, seconds)
            return
        counts = read_flows(hubble).counts()
        context.journal.write("flows", stage="observe", paths=[[*path, number] for path, number in counts.items()])
        rows = [
            ["the relay answers", "yes"],
            ["it knows the nodes", count(len(context.platform.nodes), silent_nodes(context.platform, hubble.nodes()))],
            ["flows are seen", "yes" if counts else "none yet"],
        ]
        note = "JupyterLab shows the flows live; the journal lists their paths"
        _show_once(Table("Hubble flows", ["subject", "result"], rows, note=note))


def _follow_flows(hubble: Hubble, seconds: float) -> None:
    tally, pulse = Tally(), Pulse()

    def lost(number: int) -> None:
        tally.lost += number

    def receive() -> None:
        try:
            for flow in hubble.flows(last=100, follow=True, timeout=seconds, lost=lost):
                tally.add(flow)
                pulse.beat()
        except FluobookError as error:
            pulse.disconnected(error)

    threading.Thread(target=receive, name="hubble flows", daemon=True).start()
    with Live(lambda: tally.table(pulse.notes()), live=True) as live:
        pulse.drive(live.paint, seconds)


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
    "every node is Ready": (_nodes, "kubectl describe node; talosctl -n ADDRESS dmesg"),
    "no declared node waits for a certificate": (
        _requests,
        "run the stage approve-csrs; then inspect kubelet-csr-approver: kubectl -n kube-system get pods",
    ),
    "every Application is Synced and Healthy": (
        _applications,
        "run the stage root-application again: it waits, and shows what each one waits for",
    ),
    "the Hubble relay has flows of every node": (
        _flows,
        "kubectl -n kube-system rollout status deployment/hubble-relay; cilium status",
    ),
    "kubeconfig and talosconfig are valid for more than 30 days": (
        _access_files,
        "run the stage bootstrap-kubernetes: it writes them again",
    ),
    "certificates are issued": (lambda context: certificates_check(context.kube()), ""),
    ALERTS: (lambda context: receivers_check(context.kube()), ""),
}
"""Each check's evaluation and remedy; the evaluation of an advisory check makes the check itself."""
