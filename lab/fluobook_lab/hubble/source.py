"""Where flows come from: who is there, who talks to whom, and what the policies say to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fluobook.wire.generated.flow_pb2 import (
    TCP,
    UDP,
    CiliumEventType,
    DropReason,
    Flow,
    FlowType,
    IPVersion,
    Layer4,
    TCPFlags,
    TraceObservationPoint,
    TrafficDirection,
    Verdict,
)
from fluobook.wire.generated.flow_pb2 import Endpoint as EndpointMessage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

POLICY_DENIED = DropReason.POLICY_DENIED

STRAYS = 0.05
"""The part of the traffic that nobody has asked the policies about."""

TRIES = 20
"""Draws until one is let through; in a town where everything is closed the last one counts."""


class Port(NamedTuple):
    """A port that an endpoint listens on: "TCP" or "UDP", and its number."""

    protocol: str
    number: int


@dataclass(frozen=True)
class Endpoint:
    """Somebody who sends and receives: a pod, or an entity such as "reserved:world" (then without a pod).

    `labels` are Cilium's ("k8s:app=web", "reserved:kube-apiserver"), `ports` what it listens on; nobody connects to an
    endpoint without ports.
    """

    ip: str
    identity: int
    node: str
    namespace: str = ""
    pod: str = ""
    labels: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    workload: str = ""

    def message(self, number: int) -> EndpointMessage:
        """The endpoint in a flow."""
        message = EndpointMessage(
            ID=number, identity=self.identity, namespace=self.namespace, pod_name=self.pod, labels=self.labels
        )
        if self.workload:
            message.workloads.add(name=self.workload, kind="Deployment")
        return message


class Traffic(NamedTuple):
    """One packet that somebody sends."""

    source: Endpoint
    destination: Endpoint
    port: Port


class FlowSource(Protocol):
    """The world as Hubble sees it; asked anew for every burst of flows."""

    def endpoints(self) -> Sequence[Endpoint]:
        """Who is there now; the order must not depend on chance."""

    def denied(self, traffic: Traffic) -> bool:
        """Whether a policy drops it."""


def draw(source: FlowSource, random: Random, count: int) -> list[Flow]:
    """Some flows between those who are there, without times; the same for the same random state."""
    endpoints = source.endpoints()
    listeners = [endpoint for endpoint in endpoints if endpoint.ports]
    if not listeners or len(endpoints) <= 1:
        return []
    return [_flow(source, _traffic(source, endpoints, listeners, random), random) for _ in range(count)]


def _traffic(
    source: FlowSource, endpoints: Sequence[Endpoint], listeners: Sequence[Endpoint], random: Random
) -> Traffic:
    """Mostly what policies let through, as in a platform whose parts know each other; now and then a stray."""
    stray = random.random() < STRAYS
    for _ in range(TRIES):
        traffic = _any_traffic(endpoints, listeners, random)
        if stray or not source.denied(traffic):
            break
    return traffic


def _any_traffic(endpoints: Sequence[Endpoint], listeners: Sequence[Endpoint], random: Random) -> Traffic:
    destination = random.choice(listeners)
    source = random.choice(endpoints)
    while source == destination:
        source = random.choice(endpoints)
    return Traffic(source, destination, random.choice(destination.ports))


def _flow(source: FlowSource, traffic: Traffic, random: Random) -> Flow:
    denied = source.denied(traffic)
    flow = Flow(
        uuid=f"{random.getrandbits(128):032x}",
        verdict=Verdict.DROPPED if denied else Verdict.FORWARDED,
        l4=_layer4(traffic.port, random.randint(32768, 60999)),
        source=traffic.source.message(1),
        destination=traffic.destination.message(2),
        Type=FlowType.L3_L4,
        # A policy for what comes in is enforced where it arrives; Cilium reports it there.
        node_name=traffic.destination.node or traffic.source.node,
        traffic_direction=TrafficDirection.INGRESS,
        Summary=_summary(traffic.port, denied=denied),
    )
    flow.IP.source, flow.IP.destination = traffic.source.ip, traffic.destination.ip
    flow.IP.ipVersion = IPVersion.IPv4
    if denied:
        flow.drop_reason, flow.drop_reason_desc = POLICY_DENIED, POLICY_DENIED
        flow.event_type.CopyFrom(CiliumEventType(type=5))
    else:
        flow.is_reply.value = False
        flow.event_type.CopyFrom(CiliumEventType(type=4))
        flow.trace_observation_point = TraceObservationPoint.TO_ENDPOINT
    return flow


def _layer4(port: Port, source_port: int) -> Layer4:
    if port.protocol == "UDP":
        return Layer4(UDP=UDP(source_port=source_port, destination_port=port.number))
    return Layer4(TCP=TCP(source_port=source_port, destination_port=port.number, flags=TCPFlags(SYN=True)))


def _summary(port: Port, *, denied: bool) -> str:
    flags = " Flags: SYN" if port.protocol == "TCP" else ""
    return f"{port.protocol}{flags}" + ("; Policy denied" if denied else "")
