"""Which flows a GetFlows request wants: filters are alternatives, the fields of one must all fit."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fluobook.wire.generated.flow_pb2 import Flow


def wanted(flow: Flow, only: Sequence[Any], without: Sequence[Any]) -> bool:
    """Whether a flow passes a whitelist (empty: everything) and a blacklist."""
    return (not only or any(_fits(flow, entry) for entry in only)) and not any(_fits(flow, entry) for entry in without)


def _fits(flow: Flow, entry: Any) -> bool:
    return all(_rule(field.name)(flow, values) for field, values in entry.ListFields())


def _rule(name: str) -> Callable[[Flow, Any], bool]:
    if name not in RULES:
        raise GRPCError(Status.UNIMPLEMENTED, f"the lab's relay has no filter {name!r}")
    return RULES[name]


def _pod(side: str) -> Callable[[Flow, Any], bool]:
    def fits(flow: Flow, values: Any) -> bool:
        endpoint = getattr(flow, side)
        return any(_is_pod(endpoint, value) for value in values)

    return fits


def _is_pod(endpoint: Any, value: str) -> bool:
    """Pods are named "namespace/prefix"; without a namespace it is "default", as in Hubble."""
    namespace, slash, name = value.rpartition("/")
    namespace = namespace if slash else "default"
    return bool(endpoint.pod_name) and endpoint.namespace == namespace and endpoint.pod_name.startswith(name)


def _label(side: str) -> Callable[[Flow, Any], bool]:
    def fits(flow: Flow, values: Any) -> bool:
        labels = set(getattr(flow, side).labels)
        labels |= {label.partition(":")[2] for label in labels}
        return any(set(value.split(",")) <= labels for value in values)

    return fits


def _ip(side: str) -> Callable[[Flow, Any], bool]:
    def fits(flow: Flow, values: Any) -> bool:
        address = ip_address(getattr(flow.IP, side))
        return any(address in ip_network(value, strict=False) for value in values)

    return fits


def _port(name: str) -> Callable[[Flow, Any], bool]:
    def fits(flow: Flow, values: Any) -> bool:
        layer = getattr(flow.l4, flow.l4.WhichOneof("protocol") or "TCP")
        return str(getattr(layer, name, "")) in values

    return fits


def _protocol(flow: Flow, values: Any) -> bool:
    return (flow.l4.WhichOneof("protocol") or "").lower() in {value.lower() for value in values}


def _node(flow: Flow, values: Any) -> bool:
    return any(flow.node_name == value.rpartition("/")[2] for value in values)


RULES: dict[str, Callable[[Flow, Any], bool]] = {
    "source_pod": _pod("source"),
    "destination_pod": _pod("destination"),
    "source_label": _label("source"),
    "destination_label": _label("destination"),
    "source_ip": _ip("source"),
    "destination_ip": _ip("destination"),
    "source_port": _port("source_port"),
    "destination_port": _port("destination_port"),
    "protocol": _protocol,
    "node_name": _node,
    "verdict": lambda flow, values: flow.verdict in values,
    "drop_reason_desc": lambda flow, values: flow.drop_reason_desc in values,
    "source_identity": lambda flow, values: flow.source.identity in values,
    "destination_identity": lambda flow, values: flow.destination.identity in values,
    "traffic_direction": lambda flow, values: flow.traffic_direction in values,
    "reply": lambda flow, values: flow.is_reply.value in values,
    "uuid": lambda flow, values: flow.uuid in values,
}
"""The fields of `FlowFilter` that are understood."""
