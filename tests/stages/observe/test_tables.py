"""Objects and flows as tables: what is shown, and what is left out because it would differ from run to run."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from fluobook import params
from fluobook.clients.hubble import Endpoint, Flow
from fluobook.display.table import Cell
from fluobook.kubernetes.policies import Policies
from fluobook.stages.observe import tables
from fluobook.stages.observe.tables import SHOWN, Machine, Tally, workload
from fluobook.wire.generated.flow_pb2 import DropReason, Verdict
from fluobook.wire.generated.flow_pb2 import Flow as FlowMessage

PLATFORM = params.load("phase1", root=Path(__file__).parents[3]).platform


def node(name, *, ready="True", **spec):
    return {
        "metadata": {"name": name, "labels": {}, "creationTimestamp": "2026-11-23T11:00:00Z"},
        "spec": spec,
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "10.10.0.10"}],
            "nodeInfo": {"kubeletVersion": "v1.35.4", "osImage": "Talos (v1.13.9)"},
        },
    }


def application(name, wave=None, sync="Synced", health="Healthy", **status):
    annotations = {} if wave is None else {tables.WAVE: str(wave)}
    source = {"repoURL": "http://127.0.0.1:3333/x", "chart": name, "targetRevision": "1.2.3"}
    return {
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"project": "infrastructure", "source": source},
        "status": {"sync": {"status": sync}, "health": {"status": health}, **status},
    }


def csr(name, signer="kubernetes.io/kubelet-serving", username="system:node:talos-cp-1", request=b"", **status):
    spec = {"signerName": signer, "username": username, "request": base64.b64encode(request).decode()}
    return {"metadata": {"name": name, "creationTimestamp": "2026-11-23T11:59:30Z"}, "spec": spec, "status": status}


def states(table):
    return {row[0]: str(row[2]) for row in table.rows}


def test_declared_nodes_are_shown_whether_they_exist_or_not():
    table = tables.Nodes(PLATFORM)([node("talos-cp-1"), node("talos-worker-1", ready="Unknown")])
    assert states(table) == {
        "talos-cp-1": "✓ Ready",
        "talos-worker-1": "✗ not Ready",
        "talos-worker-2": "✗ absent",
    }
    assert table.note == "1 of 3 Ready"


def test_an_undeclared_node_is_marked():
    assert states(tables.Nodes(PLATFORM)([node("stranger")]))["stranger"] == "… Ready, not in the params"


def test_a_cordoned_node_is_marked():
    assert states(tables.Nodes(PLATFORM)([node("talos-cp-1", unschedulable=True)]))["talos-cp-1"] == "… Ready, cordoned"


def test_ages_are_shown_only_while_a_person_watches():
    objects = [node("talos-cp-1")]
    assert "age" not in tables.Nodes(PLATFORM)(objects).columns
    assert tables.Nodes(PLATFORM)(objects, live=True).rows[0][-1] == datetime(2026, 11, 23, 11, 0, tzinfo=UTC)


def test_equal_requests_are_one_row_and_have_no_random_name():
    table = tables.Csrs(PLATFORM)([csr("csr-abcde"), csr("csr-fghij")])
    assert len(table.rows) == 1
    assert "csr-" not in table.text()
    assert table.note == "2 pending"


def test_a_person_who_watches_sees_each_request_with_its_name():
    table = tables.Csrs(PLATFORM)([csr("csr-abcde"), csr("csr-fghij")], live=True)
    assert [row[0] for row in table.rows] == ["csr-abcde", "csr-fghij"]


def test_a_request_that_cannot_be_read_is_shown_with_the_reason():
    assert "cannot be read" in tables.Csrs(PLATFORM)([csr("csr-abcde", request=b"nonsense")]).text()


def test_a_bootstrap_tokens_id_is_not_shown():
    boot = csr("csr-x", signer="kubernetes.io/kube-apiserver-client-kubelet", username="system:bootstrap:abc123")
    assert "abc123" not in tables.Csrs(PLATFORM)([boot]).text()


def test_applications_are_ordered_by_wave_with_the_root_first():
    objects = [application("b", 0), application("a", 0), application("early", -4), application("root")]
    assert [row[1] for row in tables.Applications()(objects).rows] == ["root", "early", "a", "b"]


def test_mirrors_are_not_shown():
    assert "127.0.0.1" not in tables.Applications()([application("cilium", -2)]).text()


def test_the_message_of_an_application_is_shown_only_while_a_person_watches():
    stuck = application("a", 0, health="Degraded", operationState={"phase": "Running", "message": "waits for b"})
    assert "waits for b" in tables.Applications()([stuck], live=True).text()
    assert "waits for b" not in tables.Applications()([stuck]).text()
    assert tables.Applications()([stuck]).note == "0 of 1 Synced and Healthy"


def test_an_application_before_its_first_comparison_is_unknown():
    fresh = {"metadata": {"name": "a"}, "spec": {"source": {"path": "x"}}}
    assert tables.status_of(fresh) == ("Unknown", "Unknown")
    assert not tables.is_healthy(fresh)


WORLD = Endpoint("", "", "203.0.113.7", 2, ("reserved:world",))


def pod(name, *labels, namespace="monitoring"):
    return Endpoint(namespace, name, "10.244.0.5", 4711, tuple(f"k8s:{label}" for label in labels))


def flow(source, destination, verdict="FORWARDED", *, port=80, reply=False, reason=None):
    message = FlowMessage(verdict=Verdict.Value(verdict), node_name="node", traffic_direction="INGRESS")
    message.l4.TCP.source_port, message.l4.TCP.destination_port, message.is_reply.value = 40000, port, reply
    for end, endpoint in ((message.source, source), (message.destination, destination)):
        end.namespace, end.pod_name, end.identity = endpoint.namespace, endpoint.pod, endpoint.identity
        end.labels.extend(endpoint.labels)
    if reason:
        message.drop_reason_desc = DropReason.Value(reason)
    message.IP.source, message.IP.destination = source.ip, destination.ip
    return Flow(message)


@pytest.mark.parametrize(
    ("end", "name"),
    [
        (pod("grafana-7d4b9c6f5-x2vqz", "app.kubernetes.io/name=grafana"), "monitoring/grafana"),
        (pod("coredns-7d4b9c6f5-x2vqz", "k8s-app=kube-dns"), "monitoring/kube-dns"),
        (pod("thing-7d4b9c6f5b-x2vqz"), "monitoring/thing"),
        (pod("agent-x2vqz"), "monitoring/agent"),
        (pod("loki-0"), "monitoring/loki"),
        (pod("plain"), "monitoring/plain"),
        (WORLD, "world"),
        (Endpoint("", "", "198.51.100.1", 0, ()), "198.51.100.1"),
    ],
)
def test_a_workload_is_named_without_what_is_random_in_its_pods_name(end, name):
    assert workload(end) == name


def test_flows_of_two_pods_of_a_workload_are_counted_together():
    tally = Tally()
    for name in ("web-x2vqz", "web-b7cdf"):
        tally.add(flow(WORLD, pod(name)))
    assert [(path.destination, number) for path, number in tally.counts().items()] == [("monitoring/web", 2)]


def test_replies_are_not_counted():
    tally = Tally()
    tally.add(flow(pod("web"), WORLD, port=40000, reply=True))
    assert tally.counts() == {}


def test_dropped_flows_are_listed_first():
    tally = Tally()
    tally.add(flow(WORLD, pod("a")))
    tally.add(flow(WORLD, pod("z"), "DROPPED"))
    assert [path.verdict for path in tally.counts()] == ["DROPPED", "FORWARDED"]
    assert "2 flows, 1 not forwarded" in tally.table().text()


def test_the_busiest_of_both_kinds_are_shown_and_the_rest_is_counted():
    tally = Tally()
    for number in range(SHOWN):
        for verdict in ("FORWARDED", "DROPPED"):
            tally.add(flow(WORLD, pod(f"quiet{number:03d}"), verdict))
    for verdict in ("FORWARDED", "DROPPED"):
        for _ in range(2):
            tally.add(flow(WORLD, pod("zz"), verdict))
    frame = tally.table().to_frame()
    assert len(frame) == SHOWN
    assert frame[frame["to"] == "monitoring/zz"][["verdict", "flows"]].values.tolist() == [
        ["DROPPED", 2],
        ["FORWARDED", 2],
    ]
    assert frame["to"][0] == "monitoring/zz", "the busiest comes first"
    assert f"+ {2 * (SHOWN + 1) - SHOWN} more paths" in tally.table().note


def test_paths_beyond_a_number_are_counted_together(monkeypatch):
    monkeypatch.setattr(tables, "MOST_PATHS", 2)
    tally = Tally()
    for name in ("a", "b", "c", "d", "a"):
        tally.add(flow(WORLD, pod(name)))
    assert {path.destination: number for path, number in tally.counts().items()} == {
        "monitoring/a": 2,
        "monitoring/b": 1,
        "others": 2,
    }


def test_a_rate_is_taken_over_the_last_seconds(monkeypatch):
    now = {"s": 100.0}
    monkeypatch.setattr(tables.time, "monotonic", lambda: now["s"])
    tally = Tally()
    for seconds, number in ((0, 1), (1, 10), (1, 30)):
        now["s"] += seconds
        for _ in range(number):
            tally.add(flow(WORLD, pod("a")))
        table = tally.table()
    assert table.to_frame()["flows/s"].tolist() == [20.0]


def test_the_stream_has_the_latest_flows_only():
    tally = Tally()
    for number in range(tables.RECENT + 5):
        tally.add(flow(WORLD, pod("a"), port=number + 1))
    ports = tally.stream().to_frame()["port"].tolist()
    assert (len(ports), ports[0], ports[-1]) == (tables.RECENT, "6/TCP", f"{tables.RECENT + 5}/TCP")


POLICY = SimpleNamespace(
    namespace="monitoring", name="default-deny", kind="NetworkPolicy", data={"spec": {"podSelector": {}}}
)


@pytest.mark.parametrize(
    ("policies", "reason", "decided"),
    [
        ((POLICY,), "POLICY_DENIED", ("monitoring/default-deny", True)),
        ((), "POLICY_DENIED", ("unknown: the tree's policies allow it", False)),
        ((POLICY,), "CT_MAP_INSERTION_FAILED", ("CT_MAP_INSERTION_FAILED", False)),
    ],
)
def test_a_drop_is_expected_if_the_policies_of_the_tree_decide_it(policies, reason, decided):
    dropped = flow(WORLD, pod("grafana"), "DROPPED", reason=reason)
    assert tables.decision(Policies(policies, {}), dropped) == decided


def test_an_expected_drop_is_marked_and_names_its_policy():
    tally = Tally(lambda _flow: ("monitoring/default-deny", True))
    tally.add(flow(WORLD, pod("grafana"), "DROPPED"))
    assert tally.table().rows[0][:5] == [
        Cell("DROPPED, expected", "same"),
        "world",
        "monitoring/grafana",
        "80/TCP",
        "monitoring/default-deny",
    ]


def test_an_application_that_is_not_healthy_says_what_it_waits_for():
    own = application(
        "own",
        0,
        health="Progressing",
        resources=[{"kind": "Deployment", "name": "web", "health": {"status": "Progressing"}}],
    )
    later = application("later", 3, sync="OutOfSync", health="Missing")
    frame = tables.Applications()([own, later, application("done", 0)], live=True).to_frame()
    assert dict(zip(frame["application"], frame["waits for"], strict=True)) == {
        "done": "",
        "own": "Deployment web: Progressing",
        "later": "wave 0: own",
    }


def test_pressure_stage_and_certificate_of_a_node_are_shown():
    pressed = node("talos-cp-1")
    pressed["status"]["conditions"].append({"type": "DiskPressure", "status": "True"})
    machines = {}
    nodes = tables.Nodes(PLATFORM, machines)
    machines["talos-cp-1"] = Machine("running", 12)  # read after the table was made
    row = nodes([pressed], live=True).to_frame().iloc[0]
    assert row[["stage", "pressure", "Talos", "Kubernetes", "certificate days"]].tolist() == [
        "running",
        "Disk",
        "v1.13.9",
        "v1.35.4",
        12,
    ]


def test_an_object_is_evaluated_once_until_it_changes():
    read = []
    made = tables.Made(lambda obj: [read.append(obj["metadata"]["resourceVersion"])])
    for version in ("1", "1", "2"):
        made.rows([{"metadata": {"name": "a", "resourceVersion": version}}])
    assert read == ["1", "2"]


def test_objects_beyond_the_time_of_an_update_follow_with_the_next_one():
    made = tables.Made(lambda obj: [obj["metadata"]["name"]])
    objects = [{"metadata": {"name": name, "resourceVersion": "1"}} for name in "abc"]
    assert made.rows(objects, seconds=-1) == ([], 3)
    assert made.rows(objects) == ([["a"], ["b"], ["c"]], 0)
    changed = [{"metadata": {"name": name, "resourceVersion": "2"}} for name in "abc"]
    assert made.rows(changed, seconds=-1) == ([["a"], ["b"], ["c"]], 3), "rows of before remain until then"


def test_the_picture_of_the_waves_has_them_in_order_and_marks_what_is_not_healthy():
    apps = [application("late", 1, health="Degraded"), application("root"), application("early", -4)]
    picture = tables.waves_picture(apps)
    assert picture.text == "waves\nroot: root\n-4: early\n1: ✗ late"
    assert picture.mermaid.split("\n  ") == [
        "flowchart LR",
        'w0["root<br>root"]',
        'w1["wave -4<br>early"]',
        "w0 --> w1",
        'w2["wave 1<br>✗ late"]',
        "w1 --> w2",
    ]


def test_the_picture_of_traffic_joins_namespaces_and_dots_what_is_dropped():
    tally = Tally()
    for end, verdict in ((pod("a"), "FORWARDED"), (pod("b"), "FORWARDED"), (pod("b"), "DROPPED")):
        tally.add(flow(WORLD, end, verdict))
    tally.add(flow(pod("a"), pod("c", namespace="x")))
    picture = tables.traffic_picture(tally.counts())
    assert picture.text == "who talks to whom\nmonitoring → x: 1\nworld → monitoring: 3, 1 dropped"
    assert 'n1 -. "3, 1 dropped" .-> n0' in picture.mermaid
    assert 'n0 -- "1" --> n2' in picture.mermaid
