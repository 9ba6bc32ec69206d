"""Measures the live tables in JupyterLab with a large cluster, and prints what their users would feel.

python tools/live_tables.py [SECONDS]

1,000 nodes, 5,000 CSRs, 500 Applications that change, and 10,000 flows a second from a process of its own, in Chromium.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import nbformat
from grpclib.server import Server
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from fluobook.clients.hubble import Address, Hubble  # noqa: E402
from fluobook.params import load  # noqa: E402
from fluobook.stages.observe import tables  # noqa: E402
from fluobook.stages.observe.watch import FlowReader, follow  # noqa: E402
from fluobook.wire.generated.flow_pb2 import Verdict  # noqa: E402
from fluobook.wire.generated.observer_grpc import ObserverBase  # noqa: E402
from fluobook.wire.generated.observer_pb2 import GetFlowsResponse  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

HOST, RATE, TICK = "127.0.0.1", 10_000, 0.05
NODES, CSRS, APPLICATIONS, PATHS = 1_000, 5_000, 500, 2_000
STATES = ("Synced", "OutOfSync"), ("Healthy", "Progressing", "Degraded")
CODE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tools import live_tables
tables = live_tables.start(PORT)
for table in tables.values():
    table.show()
"""
LIMIT = 50
"""Milliseconds that a task of the page may take: a person feels longer ones."""
ANSWER = """async code => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const started = performance.now(), future = kernel.requestExecute({code});
  let text = '';
  future.onIOPub = message => { text += message.content.text ?? ''; };
  await future.done;
  return [performance.now() - started, text];
}"""


def main(arguments: list[str]) -> int:
    """Measure; returns the exit code."""
    from tests.browser.conftest import BOUND, CHROMIUM, KERNEL, KERNEL_IS_IDLE, QUIET, serving  # noqa: PLC0415

    seconds = float(arguments[0]) if arguments else 60.0
    folder = Path(tempfile.mkdtemp(prefix="fluobook-live-"))
    (folder / "notebooks").mkdir()
    command = [sys.executable, __file__, "serve"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, **pipes) as relay, ended(relay):
        port = int(relay.stdout.readline() if relay.stdout else "0")
        cell = nbformat.v4.new_code_cell(CODE.replace("PORT", str(port)))
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata=KERNEL)
        nbformat.write(notebook, folder / "notebooks" / "scale.ipynb")
        with serving(folder / "notebooks", folder / "state") as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
            page = browser.new_page(viewport={"width": 1400, "height": 2400})
            page.set_default_timeout(BOUND * 1000)
            page.goto(f"{server['url']}lab/tree/scale.ipynb?token={server['token']}&reset")
            page.wait_for_function(KERNEL_IS_IDLE)
            measure(browser, page, seconds)
            page.screenshot(path=folder / "scale.png")
            print(f"picture: {folder / 'scale.png'}")
            browser.close()
    return 0


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End a process, whatever happens."""
    try:
        yield
    finally:
        process.terminate()


def measure(browser: Browser, page: Page, seconds: float) -> None:
    """Show the tables, watch for some seconds, and print the numbers."""
    ask(page, f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tools import live_tables")
    started = time.monotonic()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.locator(".fluobook-body [role=row]").first.wait_for()
    print(f"first rows after {time.monotonic() - started:.1f} s")
    page.wait_for_function(f"[...document.querySelectorAll('.fluobook-count')].some(c => c.innerText == '{CSRS} rows')")
    print(f"all CSRs after {time.monotonic() - started:.1f} s")
    before = json.loads(ask(page, "print(live_tables.numbers())")[1])
    browser.start_tracing(page=page, categories=["toplevel", "disabled-by-default-devtools.timeline"])
    answers, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        answers.append(ask(page, "print(1 + 1)")[0])
        page.wait_for_timeout(1000)
    tasks = tasks_of(json.loads(browser.stop_tracing())["traceEvents"])
    after = json.loads(ask(page, "print(live_tables.numbers())")[1])
    print(
        f"1+1: {len(answers)} times, median {sorted(answers)[len(answers) // 2]:.0f} ms, longest {max(answers):.0f} ms"
    )
    print(f"updates, kernel ms (median, longest), then the same of work: {after['updates']}")
    for name, times in zip(("tasks", "work"), zip(*tasks, strict=True), strict=True):
        over = sum(t > LIMIT for t in times)
        print(f"page, {name} of the main thread: {over} over {LIMIT} ms, longest {max(times):.0f} ms")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    flows = after["flows"] - before["flows"]
    print(f"flows: {flows / (after['at'] - before['at']):,.0f} a second; {after['lost']} lost; paths {after['paths']}")
    print(f"counted {after['flows']}, of the relay's {after['sent']} (the difference is under way)")
    print(f"memory of the kernel: {before['rss']:.0f} MB, then {after['rss']:.0f} MB")


def tasks_of(events: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """The milliseconds of each task of the page's main thread, and those of them in which it worked."""
    main = {
        (e["pid"], e["tid"]) for e in events if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
    }
    tasks = (e for e in events if e["name"].endswith("RunTask") and (e["pid"], e["tid"]) in main and "dur" in e)
    return [(task["dur"] / 1000, task.get("tdur", 0) / 1000) for task in tasks]


def ask(page: Page, code: str) -> tuple[float, str]:
    """Execute code beside the cells: the milliseconds it took, and what it printed."""
    milliseconds, text = page.evaluate(ANSWER, code)
    return milliseconds, text


# ---- in the kernel -------------------------------------------------------------------------------------------------

_times: dict[str, list[tuple[float, float]]] = {}
_reader: list[FlowReader] = []


class Store:
    """Objects that change, in place of a cluster's API."""

    def __init__(self, objects: list[dict[str, Any]], change: Callable[[dict[str, Any], Random], None]) -> None:
        self._objects, self._change = objects, change
        self.synced, self.error = threading.Event(), None

    def inform(self, _api: str, _kind: str, on_change: Callable[[Any], None], **_: Any) -> Store:
        """Change some objects ten times a second."""
        random = Random(1)

        def run() -> None:
            self.synced.set()
            while True:
                for index in random.sample(range(len(self._objects)), 5):
                    self._change(self._objects[index], random)
                    self._objects[index]["metadata"]["resourceVersion"] = str(random.random())
                on_change(None)
                time.sleep(0.1)

        threading.Thread(target=run, daemon=True).start()
        return self

    def items(self) -> list[dict[str, Any]]:
        """The objects."""
        return self._objects

    def stop(self, _seconds: float) -> None:
        """Nothing to end."""


def start(port: int) -> dict[str, Any]:
    """The four tables in this kernel."""
    platform = load("phase1", root=ROOT).platform
    made: dict[str, Any] = {
        "nodes": follow(Store(*nodes()), "", "", tables.Nodes(platform)),  # type: ignore[arg-type]
        "csrs": follow(Store(*csrs()), "", "", tables.Csrs(platform)),  # type: ignore[arg-type]
        "applications": follow(Store(*applications()), "", "", tables.Applications()),  # type: ignore[arg-type]
    }
    hubble = Hubble(Address(HOST, port, "hubble-relay"))
    _reader.append(FlowReader(lambda: nullcontext(hubble), lambda: tables.policies.Policies((), {})))
    made["flows"] = _reader[0].top()
    for name, live in made.items():
        timed(name, live)
    return made


def timed(name: str, live: Any) -> None:
    """Note the milliseconds of each update, and those of them in which its thread worked."""
    update, times = live._update, _times.setdefault(name, [])  # noqa: SLF001

    def measured() -> None:
        began, worked = time.perf_counter(), time.thread_time()
        update()
        times.append(((time.perf_counter() - began) * 1000, (time.thread_time() - worked) * 1000))

    live._update = measured  # noqa: SLF001


def numbers() -> str:
    """What was measured in this kernel, as JSON."""
    tally = _reader[0].tally
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    sorted_times = {name: [sorted(column) for column in zip(*t, strict=True)] for name, t in _times.items() if t}
    updates = {name: [(round(c[len(c) // 2]), round(c[-1])) for c in both] for name, both in sorted_times.items()}
    recent = [flow for flow, _ in list(tally._recent)]  # noqa: SLF001
    counts = tally.counts()
    return json.dumps(
        {
            "at": time.monotonic(),
            "flows": sum(counts.values()),
            "paths": len(counts),
            "lost": tally.lost,
            "sent": int(recent[-1].uuid or 0) if recent else 0,
            "rss": pages * 4096 / 1e6,
            "updates": updates,
        }
    )


def nodes() -> tuple[list[dict[str, Any]], Callable[[dict[str, Any], Random], None]]:
    """Nodes, and how one changes."""
    made = []
    for number in range(NODES):
        status = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.35.4"}}
        metadata = {"name": f"talos-worker-{number}", "labels": {}, "creationTimestamp": "2026-11-23T11:00:00Z"}
        made.append({"metadata": metadata | {"resourceVersion": "1"}, "spec": {}, "status": status})

    def change(node: dict[str, Any], random: Random) -> None:
        node["status"]["conditions"][0]["status"] = random.choice(("True", "False"))

    return made, change


def csrs() -> tuple[list[dict[str, Any]], Callable[[dict[str, Any], Random], None]]:
    """CSRs with real requests, and how one changes."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "system:nodes")]
    names += [x509.NameAttribute(x509.NameOID.COMMON_NAME, "system:node:talos-worker-1")]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("talos-worker-1")]), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    spec = {
        "signerName": "kubernetes.io/kubelet-serving",
        "username": "system:node:talos-worker-1",
        "request": base64.b64encode(pem).decode(),
        "usages": ["server auth"],
    }
    made = [
        {
            "metadata": {"name": f"csr-{n:05}", "creationTimestamp": "2026-11-28T11:00:00Z", "resourceVersion": "1"},
            "spec": spec,
            "status": {},
        }
        for n in range(CSRS)
    ]

    def change(csr: dict[str, Any], random: Random) -> None:
        csr["status"] = random.choice(({}, {"conditions": [{"type": "Denied"}]}, {"certificate": "x"}))

    return made, change


def applications() -> tuple[list[dict[str, Any]], Callable[[dict[str, Any], Random], None]]:
    """Applications, and how one changes."""
    made: list[dict[str, Any]] = []
    for number in range(APPLICATIONS):
        annotations = {tables.WAVE: str(number // 50 - 4)}
        metadata = {"name": f"application-{number}", "annotations": annotations, "resourceVersion": "1"}
        spec = {"project": "apps", "source": {"chart": f"chart-{number}", "targetRevision": "1.2.3"}}
        made.append({"metadata": metadata, "spec": spec, "status": {}})

    def change(app: dict[str, Any], random: Random) -> None:
        sync, health = map(random.choice, STATES)
        app["status"] = {"sync": {"status": sync}, "health": {"status": health}}

    return made, change


# ---- the relay -----------------------------------------------------------------------------------------------------


class Flows(ObserverBase):  # type: ignore[misc]
    """A relay with many paths that sends flows at a rate; each flow's id is its number."""

    async def GetFlows(self, stream: Any) -> None:  # noqa: N802 (the service's name for it)
        """Send flows until the end."""
        await stream.recv_message()
        random, replies = Random(1), [flow(number) for number in range(PATHS)]
        sent, began = 0, time.monotonic()
        while True:
            while sent < (time.monotonic() - began) * RATE:
                reply, sent = random.choice(replies), sent + 1
                reply.flow.uuid = str(sent)
                await stream.send_message(reply)
            await asyncio.sleep(TICK)

    async def _nothing(self, stream: Any) -> None:
        await stream.recv_message()

    GetAgentEvents = GetDebugEvents = GetNamespaces = GetNodes = ServerStatus = _nothing


def flow(number: int) -> GetFlowsResponse:
    """A flow of one path; each tenth is dropped."""
    reply = GetFlowsResponse(node_name="talos-worker-1")
    reply.flow.verdict = Verdict.FORWARDED if number % 10 else Verdict.DROPPED
    reply.flow.time.GetCurrentTime()
    reply.flow.l4.TCP.destination_port = 8000 + number
    for end, name in ((reply.flow.source, f"web-{number % 40}"), (reply.flow.destination, f"db-{number % 30}")):
        end.namespace, end.pod_name = f"namespace-{number % 12}", f"{name}-6f5b8c7d9-x2x4z"
        end.labels.extend([f"k8s:app.kubernetes.io/name={name}"])
    return reply


async def serve() -> None:
    """Serve until the end of the process, and print the port."""
    server = Server([Flows()])
    await server.start(HOST, 0)
    print(server._server.sockets[0].getsockname()[1], flush=True)  # type: ignore[union-attr] # noqa: SLF001
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    sys.exit(main(sys.argv[1:]))
