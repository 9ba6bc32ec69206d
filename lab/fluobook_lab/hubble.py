"""Hubble relay: flows between the cluster's pods, with the verdicts of its network policies, over gRPC."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from fluobook.kubernetes import policies as network
from fluobook.kubernetes.policies import Policies, Policy
from fluobook.wire.generated import flow_pb2, observer_pb2
from fluobook.wire.generated.flow_pb2 import DropReason, Flow, Verdict
from fluobook.wire.generated.relay_pb2 import NodeState
from fluobook_lab.grpc import Endpoint as GrpcEndpoint
from fluobook_lab.grpc import Service, reserve

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.store import Store

RING = 4095
"""Flows that are kept, the default of a Hubble server."""

TICK = 0.05
"""Real seconds between bursts of flows."""

LARGEST_BURST = 10
"""Flows in a burst at most, so that a high time scale or a slow machine does not produce more than can be sent."""

CATCH_UP = 500
"""Flows that are generated at most for the time in which nobody followed them."""

STRAYS = 0.05
"""The share of traffic that is generated without regard to the policies."""

TRIES = 20
"""Attempts to find traffic that the policies allow; if all fail, the last one counts."""

VERSION = "1.20.2"
_FIRST_IDENTITY = 16384


class Port(NamedTuple):
    """A port that an endpoint listens on: "TCP" or "UDP", and its number."""

    protocol: str
    number: int


@dataclass(frozen=True)
class Endpoint:
    """A source or destination of flows: a pod, or an entity such as "reserved:world" (without a pod).

    `labels` are Cilium's ("k8s:app=web", "reserved:kube-apiserver"). Nothing connects to an endpoint without `ports`.
    """

    ip: str
    identity: int
    node: str
    namespace: str = ""
    pod: str = ""
    labels: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()

    def message(self, number: int) -> flow_pb2.Endpoint:
        """The endpoint in a flow."""
        return flow_pb2.Endpoint(
            ID=number, identity=self.identity, namespace=self.namespace, pod_name=self.pod, labels=self.labels
        )


WORLD = Endpoint("203.0.113.7", 2, "", labels=("reserved:world",))


class Traffic(NamedTuple):
    """One packet."""

    source: Endpoint
    destination: Endpoint
    port: Port


class FlowSource(Protocol):
    """The cluster as Hubble sees it; read again for every burst of flows."""

    def endpoints(self) -> Sequence[Endpoint]:
        """The present endpoints, in a deterministic order."""

    def denied(self, traffic: Traffic) -> bool:
        """Whether a policy drops the packet."""


class ClusterFlows:
    """The pods and network policies of the lab's Kubernetes as a source of flows.

    Args:
        store: the objects of the cluster.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._versions: list[str] = []
        self._endpoints: Sequence[Endpoint] = (WORLD,)
        self._policy_versions: list[str] = []
        self._policies: Policies[Policy] = Policies((), {})
        self._verdicts: dict[tuple[int, int, Port], bool] = {}

    def endpoints(self) -> Sequence[Endpoint]:
        """Every running pod with an address, and the world outside; `denied` uses the policies of this moment."""
        pods = [pod for pod in self._store.view("v1", "Pod") if _ip(pod)]
        policies = self._store.view("networking.k8s.io/v1", "NetworkPolicy")
        namespaces = self._store.view("v1", "Namespace")
        versions, policy_versions = _versions(pods), _versions([*policies, *namespaces])
        if (versions, policy_versions) == (self._versions, self._policy_versions):
            return self._endpoints
        if versions != self._versions:
            pods.sort(key=lambda pod: (pod["metadata"]["namespace"], pod["metadata"]["name"]))
            self._endpoints = (WORLD, *(_endpoint(number, pod) for number, pod in enumerate(pods)))
        if policy_versions != self._policy_versions:
            labels = {obj["metadata"]["name"]: obj["metadata"].get("labels") or {} for obj in namespaces}
            self._policies = Policies(tuple(Policy(policy) for policy in policies), labels)
        self._verdicts.clear()
        self._versions, self._policy_versions = versions, policy_versions
        return self._endpoints

    def denied(self, traffic: Traffic) -> bool:
        """Whether the policies that select the destination do not allow the packet."""
        key = (traffic.source.identity, traffic.destination.identity, traffic.port)
        if key not in self._verdicts:
            source, target = _policy_endpoint(traffic.source), _policy_endpoint(traffic.destination)
            verdict = self._policies.verdict(source, target, traffic.port.number, traffic.port.protocol)
            self._verdicts[key] = not verdict.allowed
        return self._verdicts[key]


def _policy_endpoint(endpoint: Endpoint) -> network.Endpoint:
    labels = (label.removeprefix("k8s:").partition("=") for label in endpoint.labels if label.startswith("k8s:"))
    return network.Endpoint(
        endpoint.pod,
        endpoint.namespace,
        {key: value for key, _, value in labels},
        entity="" if endpoint.pod else "world",
        address=endpoint.ip,
    )


def _versions(objects: Iterable[Obj]) -> list[str]:
    return [obj["metadata"]["resourceVersion"] for obj in objects]


def _ip(pod: Obj) -> str:
    return (pod.get("status") or {}).get("podIP") or ""


def _endpoint(number: int, pod: Obj) -> Endpoint:
    metadata = pod["metadata"]
    ports = [port for container in pod["spec"].get("containers") or () for port in container.get("ports") or ()]
    return Endpoint(
        _ip(pod),
        _FIRST_IDENTITY + number,
        pod["spec"].get("nodeName", ""),
        metadata["namespace"],
        metadata["name"],
        tuple(f"k8s:{key}={value}" for key, value in sorted((metadata.get("labels") or {}).items())),
        tuple(Port(port.get("protocol", "TCP"), port["containerPort"]) for port in ports),
    )


def generate(source: FlowSource, random: Random, count: int) -> list[Flow]:
    """Flows between the present endpoints, without times; the same for the same random state.

    Most are traffic that the policies allow, as in a platform whose parts are configured for each other.
    """
    endpoints = source.endpoints()
    listeners = [endpoint for endpoint in endpoints if endpoint.ports]
    if not listeners or len(endpoints) <= 1:
        return []
    flows = []
    for _ in range(count):
        stray = random.random() < STRAYS
        for _ in range(TRIES):
            traffic = _random_traffic(endpoints, listeners, random)
            if stray or not source.denied(traffic):
                break
        flows.append(_flow(traffic, random, denied=source.denied(traffic)))
    return flows


def _random_traffic(endpoints: Sequence[Endpoint], listeners: Sequence[Endpoint], random: Random) -> Traffic:
    destination = random.choice(listeners)
    source = random.choice(endpoints)
    while source == destination:
        source = random.choice(endpoints)
    return Traffic(source, destination, random.choice(destination.ports))


def _flow(traffic: Traffic, random: Random, *, denied: bool) -> Flow:
    port = traffic.port
    flow = Flow(
        uuid=f"{random.getrandbits(128):032x}",
        verdict=Verdict.DROPPED if denied else Verdict.FORWARDED,
        source=traffic.source.message(1),
        destination=traffic.destination.message(2),
        Type=flow_pb2.FlowType.L3_L4,
        # An ingress policy is enforced at the destination, and Cilium reports it there.
        node_name=traffic.destination.node or traffic.source.node,
        traffic_direction=flow_pb2.TrafficDirection.INGRESS,
    )
    source_port = random.randint(32768, 60999)
    if port.protocol == "UDP":
        flow.l4.UDP.source_port, flow.l4.UDP.destination_port = source_port, port.number
    else:
        flow.l4.TCP.source_port, flow.l4.TCP.destination_port = source_port, port.number
        flow.l4.TCP.flags.SYN = True
    flow.Summary = f"{port.protocol}{' Flags: SYN' if port.protocol == 'TCP' else ''}"
    flow.IP.source, flow.IP.destination = traffic.source.ip, traffic.destination.ip
    flow.IP.ipVersion = flow_pb2.IPVersion.IPv4
    if denied:
        flow.Summary += "; Policy denied"
        flow.drop_reason = flow.drop_reason_desc = DropReason.POLICY_DENIED
        flow.event_type.type = 5
    else:
        flow.is_reply.value = False
        flow.event_type.type = 4
        flow.trace_observation_point = flow_pb2.TraceObservationPoint.TO_ENDPOINT
    return flow


class Relay:
    """A Hubble relay without TLS, as it is inside a cluster.

    Args:
        source: the cluster.
        clock: the lab's clock.
        random: seeds the relay's own generator, because the number of its draws depends on real time.
        rate: flows in a simulated second, up to `LARGEST_BURST` a tick.
    """

    def __init__(self, source: FlowSource, *, clock: Clock, random: Random, rate: float = 2.0) -> None:
        self._source, self._clock, self._rate = source, clock, rate
        self._random = Random(random.getrandbits(64))
        self._ring: deque[Flow] = deque(maxlen=RING)
        self._total = 0
        self._followers: set[asyncio.Queue[list[Flow]]] = set()
        self._followed = asyncio.Event()
        self._due, self._generated = 0.0, clock.now()
        self._endpoint: GrpcEndpoint | None = None
        self._started = time.time()
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._endpoint is None:
            raise RuntimeError("the relay has not been started")
        return self._endpoint.address[1]

    async def start(self, reserved: socket.socket | None = None) -> None:
        """Serve on a reserved socket (`fluobook_lab.grpc.reserve`), or on a free port."""
        self._endpoint = GrpcEndpoint(reserved or reserve())
        descriptor = observer_pb2.DESCRIPTOR.services_by_name["Observer"]
        await self._endpoint.open([Service(descriptor, self, lambda _incoming: None)])
        self._task = asyncio.create_task(self._generate(), name="hubble relay")

    async def stop(self) -> None:
        """Refuse connections and generate no more flows."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._endpoint is not None:
            self._endpoint.release()

    def add(self, flows: Iterable[Flow]) -> None:
        """Record flows with the present time and send them to followers."""
        burst = list(flows)
        for flow in burst:
            flow.time.GetCurrentTime()
        self._ring.extend(burst)
        self._total += len(burst)
        for queue in self._followers:
            queue.put_nowait(burst)

    async def get_flows(self, request: Any, _caller: object) -> AsyncIterator[observer_pb2.GetFlowsResponse]:
        """Stream the recorded flows that match, then, to a follower, new ones."""
        self._advance(CATCH_UP)
        queue: asyncio.Queue[list[Flow]] = asyncio.Queue()
        self._followers.add(queue)
        if request.follow:
            self._followed.set()
        try:
            for flow in self._recorded(request):
                yield _response(flow)
            while request.follow:
                for flow in await queue.get():
                    if _is_over(flow, request):
                        return
                    if matches(flow, request.whitelist, request.blacklist):
                        yield _response(flow)
        finally:
            self._followers.discard(queue)
            if not self._followers:
                self._followed.clear()

    async def server_status(self, _request: Any, _caller: object) -> observer_pb2.ServerStatusResponse:
        """Return the number of recorded flows and of connected nodes."""
        self._advance(CATCH_UP)
        status = observer_pb2.ServerStatusResponse(
            num_flows=len(self._ring),
            max_flows=RING,
            seen_flows=self._total,
            uptime_ns=int((time.time() - self._started) * 1e9),
            version=f"cilium v{VERSION}",
            flows_rate=self._total / max(time.time() - self._started, 1e-3),
        )
        status.num_connected_nodes.value = len(self._nodes())
        status.num_unavailable_nodes.value = 0
        return status

    async def get_nodes(self, _request: Any, _caller: object) -> observer_pb2.GetNodesResponse:
        """Return the connected nodes."""
        nodes = [
            observer_pb2.Node(name=name, version=f"cilium v{VERSION}", state=NodeState.NODE_CONNECTED, max_flows=RING)
            for name in self._nodes()
        ]
        return observer_pb2.GetNodesResponse(nodes=nodes)

    def _nodes(self) -> list[str]:
        return sorted({endpoint.node for endpoint in self._source.endpoints() if endpoint.node})

    def _recorded(self, request: Any) -> list[Flow]:
        """The first or last flows of the ring that match; none for a follower that requests no past flows."""
        if request.follow and not request.number and not request.HasField("since"):
            return []
        since = request.since.ToNanoseconds() if request.HasField("since") else 0
        flows = [
            flow
            for flow in self._ring
            if flow.time.ToNanoseconds() >= since
            and not _is_over(flow, request)
            and matches(flow, request.whitelist, request.blacklist)
        ]
        if not request.number:
            return flows
        return list(itertools.islice(flows, request.number)) if request.first else flows[-request.number :]

    async def _generate(self) -> None:
        """Generate flows while somebody follows them; otherwise a request generates those of the time since."""
        while True:
            await self._followed.wait()
            await asyncio.sleep(TICK)
            self._advance(LARGEST_BURST)

    def _advance(self, most: int) -> None:
        """Generate the flows since the last call, but not more than `most`."""
        now = self._clock.now()
        due = min(self._due + (now - self._generated) * self._rate, most)
        self._due, self._generated = due % 1, now
        self.add(generate(self._source, self._random, int(due)))


def _is_over(flow: Flow, request: Any) -> bool:
    return request.HasField("until") and flow.time.ToNanoseconds() > request.until.ToNanoseconds()


def _response(flow: Flow) -> observer_pb2.GetFlowsResponse:
    return observer_pb2.GetFlowsResponse(flow=flow, node_name=flow.node_name, time=flow.time)


def matches(flow: Flow, whitelist: Sequence[Any], blacklist: Sequence[Any]) -> bool:
    """Whether a flow passes the filters of a GetFlows request; an empty whitelist passes everything."""
    allowed = not whitelist or any(_matches(flow, entry) for entry in whitelist)
    return allowed and not any(_matches(flow, entry) for entry in blacklist)


def _matches(flow: Flow, entry: Any) -> bool:
    for field, values in entry.ListFields():
        if field.name not in FILTERS:
            raise GRPCError(Status.UNIMPLEMENTED, f"the lab's relay has no filter {field.name!r}")
        if not FILTERS[field.name](flow, values):
            return False
    return True


def _pod(side: str) -> Callable[[Flow, Any], bool]:
    def match(flow: Flow, values: Any) -> bool:
        """Values are "namespace/prefix"; without a namespace it is "default", as in Hubble."""
        endpoint = getattr(flow, side)
        for value in values:
            namespace, slash, prefix = value.rpartition("/")
            same_namespace = endpoint.namespace == (namespace if slash else "default")
            if endpoint.pod_name and same_namespace and endpoint.pod_name.startswith(prefix):
                return True
        return False

    return match


def _label(side: str) -> Callable[[Flow, Any], bool]:
    def match(flow: Flow, values: Any) -> bool:
        labels = set(getattr(flow, side).labels)
        labels |= {label.partition(":")[2] for label in labels}
        return any(set(value.split(",")) <= labels for value in values)

    return match


def _address(side: str) -> Callable[[Flow, Any], bool]:
    def match(flow: Flow, values: Any) -> bool:
        address = ip_address(getattr(flow.IP, side))
        return any(address in ip_network(value, strict=False) for value in values)

    return match


def _port(name: str) -> Callable[[Flow, Any], bool]:
    def match(flow: Flow, values: Any) -> bool:
        layer = getattr(flow.l4, flow.l4.WhichOneof("protocol") or "TCP")
        return str(getattr(layer, name, "")) in values

    return match


FILTERS: dict[str, Callable[[Flow, Any], bool]] = {
    "source_pod": _pod("source"),
    "destination_pod": _pod("destination"),
    "source_label": _label("source"),
    "destination_label": _label("destination"),
    "source_ip": _address("source"),
    "destination_ip": _address("destination"),
    "source_port": _port("source_port"),
    "destination_port": _port("destination_port"),
    "protocol": lambda flow, values: (
        (flow.l4.WhichOneof("protocol") or "").lower() in {value.lower() for value in values}
    ),
    "node_name": lambda flow, values: any(flow.node_name == value.rpartition("/")[2] for value in values),
    "verdict": lambda flow, values: flow.verdict in values,
    "drop_reason_desc": lambda flow, values: flow.drop_reason_desc in values,
    "source_identity": lambda flow, values: flow.source.identity in values,
    "destination_identity": lambda flow, values: flow.destination.identity in values,
    "traffic_direction": lambda flow, values: flow.traffic_direction in values,
    "reply": lambda flow, values: flow.is_reply.value in values,
    "uuid": lambda flow, values: flow.uuid in values,
}
"""The supported fields of `FlowFilter`; all fields of one filter must match."""
