"""The lab's Hubble relay against fluobook's client and plain gRPC stubs."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from datetime import UTC, datetime, timedelta

import pytest
from fluobook_lab.clock import Clock
from fluobook_lab.grpc import reserve
from fluobook_lab.hubble import Endpoint, Port, Relay, generate
from grpclib.client import Channel
from grpclib.const import Status as Code
from grpclib.exceptions import GRPCError

from fluobook.clients.hubble import Address, Hubble
from fluobook.errors import Unreachable
from fluobook.wire.generated.flow_pb2 import FlowFilter, Verdict
from fluobook.wire.generated.observer_grpc import ObserverStub
from fluobook.wire.generated.observer_pb2 import GetFlowsRequest

WEB = Endpoint("10.244.1.1", 101, "worker-1", "shop", "web-1", ("k8s:app=web",), (Port("TCP", 80),))
DATABASE = Endpoint("10.244.2.1", 102, "worker-2", "shop", "db-1", ("k8s:app=db",), (Port("TCP", 5432),))
DNS = Endpoint("10.244.1.9", 103, "worker-1", "kube-system", "coredns-1", ("k8s:k8s-app=kube-dns",), (Port("UDP", 53),))
WORLD = Endpoint("203.0.113.7", 2, "", labels=("reserved:world",))


class Pods:
    """Four endpoints; only the web may reach the database."""

    def __init__(self, *endpoints):
        self._endpoints = endpoints or (WEB, DATABASE, DNS, WORLD)

    def endpoints(self):
        return self._endpoints

    def denied(self, traffic):
        return traffic.destination is DATABASE and traffic.source is not WEB


class Served:
    """A relay in a thread; it generates flows only on request, unless it has a rate."""

    def __init__(self, rate=0.0, source=None):
        self.source, self._loop = source or Pods(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.relay = Relay(self.source, clock=Clock(10), random=random.Random(1), rate=rate)
        self.do(self.relay.start())
        self.hubble = Hubble(Address("127.0.0.1", self.relay.port))

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def add_flows(self, count, seed=2):
        flows = generate(self.source, random.Random(seed), count)

        async def add():
            self.relay.add(flows)

        self.do(add())
        return flows

    def raw(self, request):
        async def call():
            channel = Channel("127.0.0.1", self.relay.port)
            try:
                return await asyncio.wait_for(ObserverStub(channel).GetFlows(request), 10)
            finally:
                channel.close()

        return self.do(call())

    def stop(self):
        self.hubble.close()
        self.do(self.relay.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def served():
    relay = Served()
    yield relay
    relay.stop()


def test_the_last_flows_are_sorted_oldest_first(served):
    added = served.add_flows(50)
    assert [flow.uuid for flow in served.hubble.flows(last=20)] == [flow.uuid for flow in added[-20:]]


def test_all_recorded_flows_are_returned(served):
    served.add_flows(5000)
    assert len(list(served.hubble.flows(last=0))) == 4095


def test_a_flow_has_source_destination_and_verdict(served):
    served.add_flows(200)
    flow = next(flow for flow in served.hubble.flows(last=0) if flow.verdict == "DROPPED")
    assert flow.destination.name == "shop/db-1"
    assert flow.source.name in {"kube-system/coredns-1", "reserved:world"}
    assert (flow.drop_reason, flow.protocol, flow.destination_port) == ("POLICY_DENIED", "TCP", 5432)
    assert flow._message.node_name == "worker-2"
    assert abs(datetime.now(UTC) - flow.time) < timedelta(minutes=1)


def test_verdicts_follow_the_policies(served):
    served.add_flows(300)
    flows = list(served.hubble.flows(last=0))
    denied = {(flow.source.name, flow.destination.name) for flow in flows if flow.verdict == "DROPPED"}
    assert denied == {("kube-system/coredns-1", "shop/db-1"), ("reserved:world", "shop/db-1")}
    assert not any(flow.drop_reason for flow in flows if flow.verdict == "FORWARDED")


def pairs(replies):
    return {(reply.flow.source.pod_name, reply.flow.destination.pod_name) for reply in replies}


def test_filters_select_flows(served):
    served.add_flows(300)
    to_db = FlowFilter(destination_pod=["shop/db"], protocol=["TCP"], destination_port=["5432"], node_name=["worker-2"])
    dropped = FlowFilter(verdict=[Verdict.DROPPED])
    chosen = served.raw(GetFlowsRequest(whitelist=[to_db], blacklist=[dropped]))
    assert chosen
    assert pairs(chosen) == {("web-1", "db-1")}


def test_filters_select_namespaces_and_labels(served):
    served.add_flows(300)
    dns = served.raw(GetFlowsRequest(whitelist=[FlowFilter(destination_pod=["kube-system/"])]))
    assert {reply.flow.l4.WhichOneof("protocol") for reply in dns} == {"UDP"}
    labelled = served.raw(GetFlowsRequest(whitelist=[FlowFilter(source_label=["app=web"])]))
    assert {reply.flow.source.pod_name for reply in labelled} == {"web-1"}


def test_flows_before_the_requested_time_are_left_out(served):
    served.add_flows(10)
    request = GetFlowsRequest()
    request.since.FromDatetime(datetime.now(UTC) + timedelta(minutes=1))
    assert served.raw(request) == []


def test_a_follower_receives_new_flows_and_can_stop(served):
    following = served.hubble.flows(last=5, follow=True)
    served.add_flows(10, seed=3)
    old = list(itertools.islice(following, 5))
    added = served.add_flows(3, seed=4)
    assert [flow.uuid for flow in itertools.islice(following, 3)] == [flow.uuid for flow in added]
    assert len({flow.uuid for flow in old}) == 5
    following.close()


def test_a_follower_with_a_timeout_ends_without_an_error(served):
    assert list(served.hubble.flows(last=0, follow=True, timeout=0.2)) == []


def test_the_relay_generates_flows_at_its_rate():
    relay = Served(rate=20)
    try:
        flows = list(itertools.islice(relay.hubble.flows(last=0, follow=True, timeout=20), 30))
        assert len(flows) == 30
    finally:
        relay.stop()


def test_the_same_seed_generates_the_same_flows():
    first, second = (generate(Pods(), random.Random(7), 40) for _ in range(2))
    assert [flow.SerializeToString() for flow in first] == [flow.SerializeToString() for flow in second]


def test_a_single_endpoint_has_no_flows():
    assert generate(Pods(WORLD), random.Random(1), 5) == []


def test_the_relay_lists_its_nodes(served):
    assert served.hubble.nodes() == ("worker-1", "worker-2")


def test_a_stopped_relay_is_unreachable():
    reserved = reserve()
    hubble = Hubble(Address(*reserved.getsockname(), server_name="hubble-relay.kube-system"))
    with pytest.raises(Unreachable) as caught:
        hubble.nodes()
    assert caught.value.code == "ECONNREFUSED"
    assert "hubble-relay.kube-system" in str(caught.value)
    reserved.close()


def test_a_follower_ends_with_an_error_when_the_relay_stops(served):
    following = served.hubble.flows(last=1, follow=True)
    served.add_flows(1)
    next(following)
    served.do(served.relay.stop())
    with pytest.raises(Unreachable):
        next(following)


def test_plain_stubs_get_the_first_flows(served):
    added = served.add_flows(9)
    replies = served.raw(GetFlowsRequest(number=2, first=True))
    assert [reply.flow.uuid for reply in replies] == [flow.uuid for flow in added[:2]]
    assert replies[0].node_name == replies[0].flow.node_name
    assert replies[0].time == replies[0].flow.time


def test_an_unsupported_filter_is_refused(served):
    served.add_flows(1)
    with pytest.raises(GRPCError) as caught:
        served.raw(GetFlowsRequest(whitelist=[FlowFilter(http_path=["/"])]))
    assert caught.value.status is Code.UNIMPLEMENTED
