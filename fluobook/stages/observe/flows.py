"""Network flows as Hubble sees them: who talks to whom, how often, and what the policies let through."""

from __future__ import annotations

import re
import threading
from collections import Counter
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from fluobook.clients.hubble import Address, Hubble
from fluobook.display.live import Live, interactive
from fluobook.display.table import Cell, Table
from fluobook.errors import FluobookError, NotFound, StageMissing
from fluobook.stages.observe.rows import count
from fluobook.stages.observe.watch import SECONDS, Pulse, cluster

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fluobook.clients.hubble import Endpoint, Flow
    from fluobook.context import RunContext

FORWARDED = "FORWARDED"
RELAY, NAMESPACE, PORT = "hubble-relay", "kube-system", 80
SHOWN = 40
"""Rows at most while a person watches."""
REMEMBERED = 500
"""Flows that are asked for when nobody watches."""

_NAME_LABELS = ("app.kubernetes.io/name", "k8s-app", "app")
_HASH = "[bcdfghjklmnpqrstvwxz2456789]"
_SUFFIX = re.compile(rf"(-{_HASH}{{6,10}})?-{_HASH}{{5}}$|-\d+$")


class Path(NamedTuple):
    """What flows are counted by: who, whom, on which port, and what became of it."""

    verdict: str
    source: str
    destination: str
    port: str


class Tally:
    """Counts flows; one thread adds, others read."""

    def __init__(self) -> None:
        self._counts: Counter[Path] = Counter()
        self._lock = threading.Lock()
        self.lost = 0

    def add(self, flow: Flow) -> None:
        """Count a flow; replies are left out, as they only mirror what was asked."""
        if flow.reply:
            return
        number, protocol = flow.destination_port, flow.protocol
        port = f"{number}/{protocol}" if number else protocol
        path = Path(flow.verdict, workload(flow.source), workload(flow.destination), port)
        with self._lock:
            self._counts[path] += 1

    def counts(self) -> dict[Path, int]:
        """How often each path was seen, what was dropped first, then by name."""
        with self._lock:
            found = dict(self._counts)
        return dict(sorted(found.items(), key=lambda item: (item[0].verdict == FORWARDED, item[0])))

    def table(self, notes: Sequence[str] = ()) -> Table:
        """The busiest paths for a person: half the rows for what went through, half for what did not."""
        counts = self.counts()
        through = {path: number for path, number in counts.items() if path.verdict == FORWARDED}
        stopped = {path: number for path, number in counts.items() if path.verdict != FORWARDED}
        shown = {**busiest(stopped, SHOWN // 2), **busiest(through, SHOWN // 2)}
        rows = [[Cell(p.verdict, _tone(p)), p.source, p.destination, p.port, number] for p, number in shown.items()]
        hidden = len(counts) - len(shown)
        note = [
            f"+ {hidden} more paths" if hidden else "",
            f"{sum(counts.values())} flows, {sum(stopped.values())} not let through",
            f"{self.lost} not told" if self.lost else "",
        ]
        columns = ["verdict", "from", "to", "port", "flows"]
        return Table("Hubble flows", columns, rows, note="\n".join(filter(None, [*note, *notes])))


def busiest(counts: Mapping[Path, int], most: int) -> dict[Path, int]:
    """The paths with most flows, in the order in which they came: rows then stay where they are as numbers grow."""
    chosen = set(sorted(counts, key=lambda path: (-counts[path], path))[:most])
    return {path: number for path, number in counts.items() if path in chosen}


def _tone(path: Path) -> str:
    return {FORWARDED: "ok", "DROPPED": "bad"}.get(path.verdict, "wait")


@lru_cache(maxsize=4096)
def workload(end: Endpoint) -> str:
    """The workload at one end of a flow: its name label, else its pod's name without the random part."""
    if not end.pod:
        return end.name.removeprefix("reserved:")
    labels = dict(label.removeprefix("k8s:").partition("=")[::2] for label in end.labels)
    name = next((labels[key] for key in _NAME_LABELS if labels.get(key)), _SUFFIX.sub("", end.pod))
    return f"{end.namespace}/{name}"


@contextmanager
def relay(context: RunContext) -> Iterator[Hubble]:
    """Hubble's relay: where the params map it to, else through the Kubernetes API.

    Raises:
        StageMissing: there is no cluster, or no relay in it, yet.
        Unreachable: it does not answer.
    """
    kube = cluster(context)
    name = f"{RELAY}.{NAMESPACE}"
    host, port = context.platform.route(name, PORT)
    if (host, port) != (name, PORT):
        yield from _opened(Address(host, port, name))
        return
    try:
        forward = kube.forward(RELAY, NAMESPACE, PORT)
    except NotFound:
        raise StageMissing("there is no Hubble relay", remedy="run the stage root-application first") from None
    with forward:
        yield from _opened(Address(*forward.address, name))


def _opened(address: Address) -> Iterator[Hubble]:
    hubble = Hubble(address)
    try:
        yield hubble
    finally:
        hubble.close()


def watch_flows(context: RunContext, *, seconds: float = SECONDS) -> None:
    """Show flows as they happen, for some seconds if a person watches; else what does not depend on the moment."""
    with relay(context) as hubble:
        if interactive():
            _live(hubble, seconds)
        else:
            table = _summary(context, hubble)
            with Live(lambda: table, live=False):
                pass


def _live(hubble: Hubble, seconds: float) -> None:
    tally, pulse = Tally(), Pulse()

    def lose(number: int) -> None:
        tally.lost += number

    def follow() -> None:
        try:
            for flow in hubble.flows(last=100, follow=True, timeout=seconds, lost=lose):
                tally.add(flow)
                pulse.beat()
        except FluobookError as error:
            pulse.trouble = error.message

    threading.Thread(target=follow, name="hubble flows", daemon=True).start()
    with Live(lambda: tally.table(pulse.notes()), live=True) as live:
        pulse.drive(live.paint, seconds)


def _summary(context: RunContext, hubble: Hubble) -> Table:
    """Which flows there were depends on the moment; that goes into the journal, and what is shown does not."""
    seen = read(hubble)
    context.journal.write("flows", stage="observe", paths=[[*path, number] for path, number in seen.counts().items()])
    reporting = set(hubble.nodes())
    rows = [
        ["the relay answers", "yes"],
        ["it knows the nodes", count(len(context.platform.nodes), silent(context, reporting))],
        ["flows are seen", "yes" if seen.counts() else "none yet"],
    ]
    return Table(
        "Hubble flows", ["what", "seen"], rows, note="who talks to whom is told live in JupyterLab, and in the journal"
    )


def read(hubble: Hubble) -> Tally:
    """The flows that the relay remembers."""
    tally = Tally()
    for flow in hubble.flows(last=REMEMBERED):
        tally.add(flow)
    return tally


def silent(context: RunContext, reporting: Iterable[str]) -> list[str]:
    """The nodes of the params that Hubble hears nothing from; it may put the cluster's name before theirs."""
    known = {name.rpartition("/")[2] for name in reporting}
    return [node.name for node in context.platform.nodes if node.name not in known]
