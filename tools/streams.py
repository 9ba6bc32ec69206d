"""Prints how many events a CPU second the live tables handle: watched Applications, and Hubble's flows.

A process of its own sends both as fast as they are taken; counted is the CPU time of the one that follows them.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpclib.server import Server

from fluobook.clients.hubble import Address, Hubble
from fluobook.clients.kube import Kube
from fluobook.machine import pki
from fluobook.stages.observe.tables import Applications, Tally
from fluobook.wire.generated.flow_pb2 import Verdict
from fluobook.wire.generated.observer_grpc import ObserverBase
from fluobook.wire.generated.observer_pb2 import GetFlowsResponse

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
EVENTS = 20_000
BOUND = 120
APPLICATION = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Application",
    "metadata": {"name": "longhorn", "namespace": "argocd", "uid": "u", "resourceVersion": "1"},
    "spec": {"project": "infrastructure", "source": {"repoURL": "https://charts.longhorn.io", "chart": "longhorn"}},
    "status": {
        "sync": {"status": "Synced"},
        "health": {"status": "Healthy"},
        "resources": [{"kind": "ConfigMap", "name": f"part-{n}", "status": "Synced"} for n in range(40)],
    },
}
"""An Application of some 2.5 kB."""


def main() -> int:
    """Measure both; returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        authority = pki.new_authority(organization="benchmark")
        written = Path(folder) / "server.pem"
        server = pki.issue(authority, common_name="kube-apiserver", ips=[HOST], server=True)
        written.write_text(server.crt + server.key)
        command = [sys.executable, __file__, "serve", str(written)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as far:
            try:
                watch, hubble = json.loads(far.stdout.readline() if far.stdout else "[0, 0]")
                print(f"watched Applications: {watched(authority, watch):,.0f} events a CPU second", flush=True)
                print(f"Hubble's flows: {followed(hubble):,.0f} a CPU second")
            finally:
                far.terminate()
    return 0


def watched(authority: pki.KeyPair, port: int) -> float:
    """Events a CPU second that an informer takes in while a table of it is drawn twice a second."""
    with closing(Kube.from_kubeconfig(kubeconfig(authority, port))) as kube:
        events, finished, draw = itertools.count(), threading.Event(), Applications()

        def on_change(_change: object) -> None:
            if next(events) > EVENTS - 1:
                finished.set()

        informer = kube.inform("argoproj.io/v1alpha1", "Application", on_change, on_error=lambda _: None)
        try:
            return rate(lambda: drawn(lambda: draw(informer.items(), live=True), finished))
        finally:
            informer.stop()


def drawn(draw: Callable[[], object], finished: threading.Event) -> None:
    """Draw twice a second until it is over."""
    until = time.monotonic() + BOUND
    while not finished.wait(0.5):
        draw()
        if time.monotonic() > until:
            raise SystemExit(f"not {EVENTS} events within {BOUND} s")


def followed(port: int) -> float:
    """Flows a CPU second that are read and counted."""
    hubble, tally = Hubble(Address(HOST, port, "hubble-relay")), Tally()

    def follow() -> None:
        for flow in hubble.flows(last=0, follow=True, timeout=BOUND):
            tally.add(flow)

    try:
        return rate(follow)
    finally:
        hubble.close()


def rate(follow: Callable[[], None]) -> float:
    """Events a second of this process's CPU time."""
    began = time.process_time()
    follow()
    return EVENTS / (time.process_time() - began)


def kubeconfig(authority: pki.KeyPair, port: int) -> dict[str, Any]:
    """One for the server below; it asks nobody who he is."""
    cluster = {
        "server": f"https://{HOST}:{port}",
        "certificate-authority-data": base64.b64encode(authority.crt.encode()).decode(),
    }
    return {
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "clusters": [{"name": "one", "cluster": cluster}],
        "users": [{"name": "one", "user": {"token": "nobody"}}],
    }


async def serve(certificate: str) -> None:
    """Serve both until the end of the process, and print the ports."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    watch = await asyncio.start_server(answer, HOST, 0, ssl=context)
    hubble = Server([Flows()])
    await hubble.start(HOST, 0)
    ports = [server.sockets[0].getsockname()[1] for server in (watch, hubble._server)]  # noqa: SLF001 (it tells no port)
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Discovery, a list, and a watch, whatever else is asked."""
    while head := (await reader.readuntil(b"\r\n\r\n")).decode():
        path = head.split()[1]
        if "watch=true" in path:
            break
        listed = {"metadata": {"resourceVersion": "1"}, "items": [APPLICATION]}
        kinds = {"resources": [{"name": "applications", "kind": "Application", "namespaced": True}]}
        body = json.dumps(listed if "/applications" in path else kinds).encode()
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        writer.write(body)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(2, EVENTS + 2):
        metadata = {**APPLICATION["metadata"], "resourceVersion": str(number)}  # type: ignore[dict-item]
        line = json.dumps({"type": "MODIFIED", "object": {**APPLICATION, "metadata": metadata}}).encode() + b"\n"
        writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        await writer.drain()


class Flows(ObserverBase):  # type: ignore[misc]
    """A relay with one flow, sent again and again."""

    async def GetFlows(self, stream: Any) -> None:  # noqa: N802 (the service's name for it)
        """Reporter it as often as was counted on."""
        await stream.recv_message()
        reply = GetFlowsResponse(node_name="talos-worker-1")
        reply.flow.verdict, reply.flow.uuid, reply.flow.node_name = Verdict.FORWARDED, "0" * 36, "talos-worker-1"
        reply.flow.time.GetCurrentTime()
        reply.flow.l4.UDP.destination_port = 53
        for end, namespace, name in (
            (reply.flow.source, "argocd", "argocd-server"),
            (reply.flow.destination, "kube-system", "coredns"),
        ):
            end.namespace, end.pod_name = namespace, f"{name}-6f5b8c7d9-x2x4z"
            end.labels.extend([f"k8s:app.kubernetes.io/name={name}", f"k8s:io.kubernetes.pod.namespace={namespace}"])
        for _ in range(EVENTS):
            await stream.send_message(reply)

    async def _nothing(self, stream: Any) -> None:
        await stream.recv_message()

    GetAgentEvents = GetDebugEvents = GetNamespaces = GetNodes = ServerStatus = _nothing


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2]))
    sys.exit(main())
