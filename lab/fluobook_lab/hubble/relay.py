"""observer.Observer as hubble-relay serves it: a ring of flows, and those who follow it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from fluobook.wire.generated import observer_pb2
from fluobook.wire.generated.relay_pb2 import NodeState
from fluobook_lab.grpc import Endpoint as GrpcEndpoint
from fluobook_lab.grpc import Service, reserve
from fluobook_lab.hubble.filters import wanted
from fluobook_lab.hubble.source import draw

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Iterable

    from fluobook.wire.generated.flow_pb2 import Flow
    from fluobook_lab.clock import Clock
    from fluobook_lab.hubble.source import FlowSource

RING = 4095
"""Flows that are remembered, as many as a Hubble server's default."""

TICK = 0.05
"""Real seconds between bursts: often enough to look alive, seldom enough to cost little."""

LARGEST_BURST = 10
"""Flows in a burst at most: a world that runs fast, or a machine that lags behind, must not drown in its own flows."""

VERSION = "1.20.2"


class Relay:
    """A Hubble relay in plain text, as it is inside a cluster.

    Args:
        source: the world.
        clock: the world clock.
        random: what seeds the relay's own dice, since how often those are thrown depends on real time.
        rate: flows in a world second, up to `LARGEST_BURST` a tick.
    """

    def __init__(self, source: FlowSource, *, clock: Clock, random: Random, rate: float = 2.0) -> None:
        self._source, self._clock, self._rate = source, clock, rate
        self._random = Random(random.getrandbits(64))
        self._ring: deque[Flow] = deque(maxlen=RING)
        self._seen = 0
        self._followers: set[asyncio.Queue[list[Flow]]] = set()
        self._endpoint: GrpcEndpoint | None = None
        self._started = time.time()
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._endpoint is None:
            raise RuntimeError("the relay has not been started")
        return self._endpoint.address[1]

    async def start(self, reserved: socket.socket | None = None) -> None:
        """Serve on a reserved socket (`fluobook_lab.grpc.reserve`), or on a port of its own."""
        self._endpoint = GrpcEndpoint(reserved or reserve())
        descriptor = observer_pb2.DESCRIPTOR.services_by_name["Observer"]
        await self._endpoint.open([Service(descriptor, self, lambda _incoming: None)])
        self._task = asyncio.create_task(self._run(), name="hubble relay")

    async def stop(self) -> None:
        """Refuse connections and make no more flows."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._endpoint is not None:
            self._endpoint.release()

    def add(self, flows: Iterable[Flow]) -> None:
        """Let flows happen now."""
        burst = list(flows)
        for flow in burst:
            flow.time.GetCurrentTime()
        self._ring.extend(burst)
        self._seen += len(burst)
        for queue in self._followers:
            queue.put_nowait(burst)

    async def get_flows(self, request: Any, _caller: object) -> AsyncIterator[observer_pb2.GetFlowsResponse]:
        """What is remembered and asked for, then, for followers, what happens."""
        queue: asyncio.Queue[list[Flow]] = asyncio.Queue()
        self._followers.add(queue)
        try:
            for flow in self._remembered(request):
                yield _response(flow)
            while request.follow:
                for flow in await queue.get():
                    if _is_over(flow, request):
                        return
                    if wanted(flow, request.whitelist, request.blacklist):
                        yield _response(flow)
        finally:
            self._followers.discard(queue)

    async def server_status(self, _request: Any, _caller: object) -> observer_pb2.ServerStatusResponse:
        """How much is remembered, and how many nodes tell."""
        status = observer_pb2.ServerStatusResponse(
            num_flows=len(self._ring),
            max_flows=RING,
            seen_flows=self._seen,
            uptime_ns=int((time.time() - self._started) * 1e9),
            version=f"cilium v{VERSION}",
            flows_rate=self._seen / max(time.time() - self._started, 1e-3),
        )
        status.num_connected_nodes.value = len(self._nodes())
        status.num_unavailable_nodes.value = 0
        return status

    async def get_nodes(self, _request: Any, _caller: object) -> observer_pb2.GetNodesResponse:
        """The nodes that tell."""
        nodes = [
            observer_pb2.Node(name=name, version=f"cilium v{VERSION}", state=NodeState.NODE_CONNECTED, max_flows=RING)
            for name in self._nodes()
        ]
        return observer_pb2.GetNodesResponse(nodes=nodes)

    def _nodes(self) -> list[str]:
        return sorted({endpoint.node for endpoint in self._source.endpoints() if endpoint.node})

    def _remembered(self, request: Any) -> list[Flow]:
        """As Hubble rewinds: a follower that asks for nothing old gets nothing old; else the last (or first) ones."""
        if request.follow and not request.number and not request.HasField("since"):
            return []
        fitting = [flow for flow in self._ring if self._asked(flow, request)]
        if not request.number:
            return fitting
        return list(itertools.islice(fitting, request.number)) if request.first else fitting[-request.number :]

    def _asked(self, flow: Flow, request: Any) -> bool:
        if request.HasField("since") and flow.time.ToNanoseconds() < request.since.ToNanoseconds():
            return False
        return not _is_over(flow, request) and wanted(flow, request.whitelist, request.blacklist)

    async def _run(self) -> None:
        owed, before = 0.0, self._clock.now()
        while True:
            await asyncio.sleep(TICK)
            now = self._clock.now()
            owed, before = min(owed + (now - before) * self._rate, LARGEST_BURST), now
            self.add(draw(self._source, self._random, int(owed)))
            owed -= int(owed)


def _is_over(flow: Flow, request: Any) -> bool:
    return request.HasField("until") and flow.time.ToNanoseconds() > request.until.ToNanoseconds()


def _response(flow: Flow) -> observer_pb2.GetFlowsResponse:
    return observer_pb2.GetFlowsResponse(flow=flow, node_name=flow.node_name, time=flow.time)
