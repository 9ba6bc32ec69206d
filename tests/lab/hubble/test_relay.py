"""The lab's Hubble relay, asked by our client and by plain stubs."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from datetime import UTC, datetime, timedelta

import pytest
from fluobook_lab.clock import Clock
from fluobook_lab.grpc import reserve
from fluobook_lab.hubble import Endpoint, Port, Relay
from fluobook_lab.hubble.source import draw
from grpclib.client import Channel
from grpclib.const import Status as Code
from grpclib.exceptions import GRPCError

from fluobook.clients.hubble import Address, Filter, Hubble
from fluobook.errors import Unreachable
from fluobook.wire.generated.flow_pb2 import FlowFilter
from fluobook.wire.generated.observer_grpc import ObserverStub
from fluobook.wire.generated.observer_pb2 import GetFlowsRequest

WEB = Endpoint("10.244.1.1", 101, "worker-1", "shop", "web-1", ("k8s:app=web",), (Port("TCP", 80),))
DATABASE = Endpoint("10.244.2.1", 102, "worker-2", "shop", "db-1", ("k8s:app=db",), (Port("TCP", 5432),))
DNS = Endpoint("10.244.1.9", 103, "worker-1", "kube-system", "coredns-1", ("k8s:k8s-app=kube-dns",), (Port("UDP", 53),))
WORLD = Endpoint("203.0.113.7", 2, "", labels=("reserved:world",))


class Town:
    """Four who talk; nobody but the web may reach the database."""

    def __init__(self, *endpoints):
        self._endpoints = endpoints or (WEB, DATABASE, DNS, WORLD)

    def endpoints(self):
        return self._endpoints

    def denied(self, traffic):
        return traffic.destination is DATABASE and traffic.source is not WEB


class Served:
    """A relay on a thread; it makes flows only when told to, unless it has a rate."""

    def __init__(self, rate=0.0, town=None):
        self.town, self._loop = town or Town(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.relay = Relay(self.town, clock=Clock(10), random=random.Random(1), rate=rate)
        self.do(self.relay.start())
        self.hubble = Hubble(Address("127.0.0.1", self.relay.port))

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def happen(self, count, seed=2):
        flows = draw(self.town, random.Random(seed), count)

        async def add():
            self.relay.add(flows)

        self.do(add())
        return flows

    def raw(self, request):
        async def ask():
            channel = Channel("127.0.0.1", self.relay.port)
            try:
                return await asyncio.wait_for(ObserverStub(channel).GetFlows(request), 10)
            finally:
                channel.close()

        return self.do(ask())

    def stop(self):
        self.hubble.close()
        self.do(self.relay.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def served():
    made = Served()
    yield made
    made.stop()


def test_the_last_flows_come_oldest_first(served):
    happened = served.happen(50)
    assert [flow.uuid for flow in served.hubble.flows(last=20)] == [flow.uuid for flow in happened[-20:]]


def test_all_that_is_remembered_can_be_asked_for(served):
    served.happen(5000)
    assert len(list(served.hubble.flows(last=0))) == served.hubble.status().capacity == 4095


def test_a_flow_tells_who_talked_to_whom_and_what_became_of_it(served):
    served.happen(200)
    flow = next(flow for flow in served.hubble.flows(last=0) if flow.verdict == "DROPPED")
    assert flow.destination.name == "shop/db-1"
    assert flow.source.name in {"kube-system/coredns-1", "reserved:world"}
    assert (flow.drop_reason, flow.protocol, flow.destination_port) == ("POLICY_DENIED", "TCP", 5432)
    assert flow.node == "worker-2"
    assert abs(datetime.now(UTC) - flow.time) < timedelta(minutes=1)


def test_verdicts_follow_the_policies(served):
    served.happen(300)
    flows = list(served.hubble.flows(last=0))
    denied = {(flow.source.name, flow.destination.name) for flow in flows if flow.verdict == "DROPPED"}
    assert denied == {("kube-system/coredns-1", "shop/db-1"), ("reserved:world", "shop/db-1")}
    assert not any(flow.drop_reason for flow in flows if flow.verdict == "FORWARDED")


def test_only_and_without_choose_flows(served):
    served.happen(300)
    to_db = Filter(destination_pod="shop/db", protocol="TCP", destination_port=5432, node="worker-2")
    chosen = list(served.hubble.flows(last=0, only=[to_db], without=[Filter(verdict="DROPPED")]))
    assert chosen
    assert {(flow.source.name, flow.destination.name) for flow in chosen} == {("shop/web-1", "shop/db-1")}


def test_a_whole_namespace_and_labels_can_be_chosen(served):
    served.happen(300)
    dns = list(served.hubble.flows(last=0, only=[Filter(destination_pod="kube-system/")]))
    assert {flow.protocol for flow in dns} == {"UDP"}
    labelled = list(served.hubble.flows(last=0, only=[Filter(source_label="app=web")]))
    assert {flow.source.pod for flow in labelled} == {"web-1"}


def test_nothing_older_than_asked_for(served):
    served.happen(10)
    assert list(served.hubble.flows(last=0, since=datetime.now(UTC) + timedelta(minutes=1))) == []


def test_a_follower_gets_what_happens_and_can_stop(served):
    following = served.hubble.flows(last=5, follow=True)
    served.happen(10, seed=3)
    old = list(itertools.islice(following, 5))
    happened = served.happen(3, seed=4)
    assert [flow.uuid for flow in itertools.islice(following, 3)] == [flow.uuid for flow in happened]
    assert len({flow.uuid for flow in old}) == 5
    following.close()


def test_a_follower_with_a_time_ends_quietly(served):
    assert list(served.hubble.flows(last=0, follow=True, timeout=0.2)) == []


def test_flows_go_on_by_themselves_at_their_rate():
    made = Served(rate=20)
    try:
        seen = list(itertools.islice(made.hubble.flows(last=0, follow=True, timeout=20), 30))
        assert len(seen) == 30
    finally:
        made.stop()


def test_the_same_seed_makes_the_same_flows():
    one, other = (draw(Town(), random.Random(7), 40) for _ in range(2))
    assert [flow.SerializeToString() for flow in one] == [flow.SerializeToString() for flow in other]


def test_nobody_talks_where_there_is_nobody():
    assert draw(Town(WORLD), random.Random(1), 5) == []


def test_the_relay_tells_its_state_and_nodes(served):
    served.happen(7)
    status = served.hubble.status()
    assert (status.flows, status.seen, status.connected_nodes) == (7, 7, 2)
    assert served.hubble.nodes() == ("worker-1", "worker-2")


def test_a_relay_that_is_away_is_unreachable():
    reserved = reserve()
    hubble = Hubble(Address(*reserved.getsockname(), server_name="hubble-relay.kube-system"))
    with pytest.raises(Unreachable) as caught:
        hubble.status()
    assert caught.value.code == "ECONNREFUSED"
    assert "hubble-relay.kube-system" in str(caught.value)
    reserved.close()


def test_a_follower_notices_that_the_relay_went_away(served):
    following = served.hubble.flows(last=1, follow=True)
    served.happen(1)
    next(following)
    served.do(served.relay.stop())
    with pytest.raises(Unreachable):
        next(following)


def test_the_first_flows_for_plain_stubs(served):
    happened = served.happen(9)
    replies = served.raw(GetFlowsRequest(number=2, first=True))
    assert [reply.flow.uuid for reply in replies] == [flow.uuid for flow in happened[:2]]
    assert replies[0].node_name == replies[0].flow.node_name
    assert replies[0].time == replies[0].flow.time


def test_a_filter_that_is_not_played_is_refused_not_ignored(served):
    served.happen(1)
    with pytest.raises(GRPCError) as caught:
        served.raw(GetFlowsRequest(whitelist=[FlowFilter(http_path=["/"])]))
    assert caught.value.status is Code.UNIMPLEMENTED
