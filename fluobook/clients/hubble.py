"""Hubble: the flows of the cluster's network, as they happen, with their verdicts."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fluobook.clients.rpc import Address, Connection
from fluobook.wire.generated.flow_pb2 import DropReason, Verdict
from fluobook.wire.generated.observer_grpc import ObserverStub
from fluobook.wire.generated.observer_pb2 import GetFlowsRequest, GetNodesRequest

__all__ = ["Address", "Endpoint", "Flow", "Hubble"]

READ = 15.0
"""Seconds that a unary call may take."""


class Endpoint(NamedTuple):
    """One end of a flow; `namespace` and `pod` are empty where it is no pod ("reserved:world")."""

    namespace: str
    pod: str
    ip: str
    identity: int
    labels: Sequence[str]

    @property
    def name(self) -> str:
        """For a person: "namespace/pod", else the reserved label, else the address."""
        if self.pod:
            return f"{self.namespace}/{self.pod}"
        return next((label for label in self.labels if label.startswith("reserved:")), self.ip)


class Flow:
    """One packet that Cilium reported. A field is decoded when it is read: a live table reads few of many thousands."""

    __slots__ = ("_message",)

    def __init__(self, message: Any) -> None:
        self._message = message

    @property
    def time(self) -> datetime:
        """When it was reported; 1970 if that is no time."""
        moment = self._message.time
        try:
            return datetime.fromtimestamp(moment.seconds, UTC).replace(microsecond=moment.nanos // 1000)
        except (ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(0, UTC)

    @property
    def verdict(self) -> str:
        """Its verdict: "FORWARDED", "DROPPED", ..."""
        return _VERDICTS.get(self._message.verdict, "VERDICT_UNKNOWN")

    @property
    def source(self) -> Endpoint:
        """Where it came from."""
        return _endpoint(self._message.source, self._message.IP.source)

    @property
    def destination(self) -> Endpoint:
        """Where it went."""
        return _endpoint(self._message.destination, self._message.IP.destination)

    @property
    def protocol(self) -> str:
        """The layer 4 protocol: "TCP", "UDP", ..."""
        return self._message.l4.WhichOneof("protocol") or ""

    @property
    def destination_port(self) -> int:
        """The port that it was sent to; 0 where the protocol has none."""
        return getattr(getattr(self._message.l4, self.protocol, None), "destination_port", 0)

    @property
    def drop_reason(self) -> str:
        """Why it was dropped ("POLICY_DENIED"); empty if it was not."""
        reason = self._message.drop_reason_desc
        return _REASONS.get(reason, str(reason)) if reason else ""

    @property
    def denied_by(self) -> tuple[str, ...]:
        """The policies that deny it, as "namespace/name"; none where no policy allows it."""
        denying = [*self._message.ingress_denied_by, *self._message.egress_denied_by]
        return tuple(f"{policy.namespace}/{policy.name}".lstrip("/") for policy in denying)

    @property
    def reply(self) -> bool:
        """Whether it answers another packet."""
        return bool(self._message.is_reply.value)

    @property
    def uuid(self) -> str:
        """Its id."""
        return str(self._message.uuid)


class Hubble:
    """A Hubble relay; blocking, thread-safe.

    Args:
        address: the relay, or a forward to it.
        context: TLS, if the relay uses it; inside the cluster it does not.
    """

    def __init__(self, address: Address, *, context: ssl.SSLContext | None = None) -> None:
        self._connection = Connection(address, system="hubble", context=context)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def flows(
        self,
        *,
        last: int = 20,
        follow: bool = False,
        timeout: float | None = None,
        lost: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Flow]:
        """Flows, oldest first.

        Args:
            last: how many of the flows that the relay has kept; 0 for all, or for none when following.
            follow: continue with new ones until the iteration is closed.
            timeout: seconds for the whole call; without limit when following, where a timeout is no error.
            lost: called with the number of flows that the relay dropped.

        Raises:
            Unreachable: no answer, or the connection ended.
        """
        request = GetFlowsRequest(number=last, follow=follow)
        limit = timeout if timeout is not None or follow else READ
        answer = self._connection.follow if follow else self._connection.stream
        for reply in answer(ObserverStub, "GetFlows", request, timeout=limit):
            kind = reply.WhichOneof("response_types")
            if kind == "flow":
                yield Flow(reply.flow)
            elif kind == "lost_events":
                lost(reply.lost_events.num_events_lost)

    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes that are connected to the relay."""
        reply = self._connection.call(ObserverStub, "GetNodes", GetNodesRequest(), timeout=READ, again=True)
        return tuple(node.name for node in reply.nodes)


def _endpoint(message: Any, ip: str) -> Endpoint:
    return Endpoint(message.namespace, message.pod_name, ip, message.identity, message.labels)


_VERDICTS = {number: name for name, number in Verdict.items()}
_REASONS = {number: name for name, number in DropReason.items()}
