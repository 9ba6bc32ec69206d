"""An alert on its real way: vmalert evaluates the platform's rule, Alertmanager groups it, and a receiver gets it.

Both programs are those of the pinned chart, built from their Go modules, with the configuration that a platform's root
Application gives them. Waiting times are cut to a second. What VictoriaMetrics would answer, and the receivers, are one
HTTP server and one SMTP server of the test.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import pytest
import yaml

from fluobook import gitops, params
from fluobook.params import cache_folder
from fluobook.waiting import Cancellation, wait_until
from tests.engines.conftest import ROOT

pytestmark = pytest.mark.long
ALERTMANAGER, VMALERT = "0.32.1", "1.150.0"
"""The versions of the chart victoria-metrics-k8s-stack 0.91.2."""
RULES = ROOT / "cluster-gitops/infrastructure/monitoring/config/rules.yaml"
RECEIVERS = [
    {"name": "hook", "type": "webhook"},
    {"name": "chat", "type": "slack", "channel": "#ops"},
    {"name": "pager", "type": "pagerduty", "severities": ["critical"]},
    {"name": "dead-man", "type": "watchdog"},
    {
        "name": "mail",
        "type": "email",
        "to": ["ops@example.org"],
        "sender": "fluodata@example.org",
        "smarthost": "127.0.0.1:1",
        "require_tls": False,
    },
]
DEADLINE = 90.0


def go(*words: str, folder: Path, **variables: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", **variables}
    done = subprocess.run(["go", *words], cwd=folder, env=environment, check=True, capture_output=True, timeout=600)
    return done.stdout.decode()


@pytest.fixture(scope="module")
def alerting(programs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with alertmanager, amtool and vmalert, built once."""
    del programs  # Go is there if they are
    folder = cache_folder() / "engines" / f"alerting-{ALERTMANAGER}-{VMALERT}"
    if not folder.exists():
        work = tmp_path_factory.mktemp("build")
        go("mod", "init", "build", folder=work)
        module = f"github.com/prometheus/alertmanager@v{ALERTMANAGER}"
        source = json.loads(go("mod", "download", "-json", module, folder=work))["Dir"]
        copy = work / "alertmanager"
        shutil.copytree(source, copy)
        for path in (copy, copy / "ui", copy / "ui/app"):
            path.chmod(0o755)
        (copy / "ui/app/dist").mkdir()  # the module lacks the built user interface, which the program embeds
        (copy / "ui/app/dist/index.html").write_text("built without it")
        built = work / "bin"
        built.mkdir()
        go("build", "-p", "1", "-o", str(built), "./cmd/alertmanager", "./cmd/amtool", folder=copy)
        vmalert = f"github.com/VictoriaMetrics/VictoriaMetrics/app/vmalert@v{VMALERT}"
        go("install", "-p", "1", vmalert, folder=work, GOBIN=str(built))
        shutil.copytree(built, folder)
    return folder


class World:
    """What surrounds the two programs: the store with its series, and the receivers with what they got."""

    def __init__(self) -> None:
        self.series: dict[str, list[dict[str, str]]] = {}
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.mails: list[str] = []

    def answer(self, path: str, body: bytes) -> Any:
        if path.startswith("/api/v1/query"):
            expression = parse_qs(body.decode())["query"][0]
            rows = [{"metric": labels, "value": [0, "1"]} for labels in self.series.get(expression, [])]
            return {"status": "success", "data": {"resultType": "vector", "result": rows}}
        self.received.append((path.strip("/"), json.loads(body)))
        return {"status": "success", "dedup_key": "x"}

    def of(self, receiver: str) -> list[dict[str, Any]]:
        return [body for name, body in self.received if name == receiver]

    def alerts(self, receiver: str) -> set[tuple[str, str]]:
        got = [alert["labels"] for body in self.of(receiver) for alert in body["alerts"]]
        return {(labels["alertname"], labels.get("node", "")) for labels in got}


def until(holds: Callable[[], Any], what: str) -> None:
    wait_until(lambda: holds() or None, what=what, timeout=DEADLINE, cancellation=Cancellation())


def http_server(world: World) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = urlsplit(self.path).query.encode()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = world.answer(urlsplit(self.path).path, body if b"query=" in body or not query else query)
            payload = json.dumps(answer).encode()
            self.send_response(202 if self.path == "/pager" else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST  # noqa: N815 (the name that http.server calls)

        def log_message(self, *_: Any) -> None:
            """Nothing is logged."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def smtp_server(world: World) -> socketserver.ThreadingTCPServer:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 test\r\n")
            while line := self.rfile.readline().strip().upper():
                if line.startswith(b"DATA"):
                    self.wfile.write(b"354 go on\r\n")
                    lines = iter(self.rfile.readline, b".\r\n")
                    world.mails.append(b"".join(lines).decode())
                self.wfile.write(b"250 test\r\n" if not line.startswith(b"QUIT") else b"221 bye\r\n")

    return socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)


def monitoring(smarthost: str) -> dict[str, Any]:
    """The values of the monitoring chart, as the root gives them to Argo CD."""
    platform = params.load(ROOT / "params/phase1.yaml").platform
    receivers = [{**entry, "smarthost": smarthost} if "smarthost" in entry else entry for entry in RECEIVERS]
    platform = params.overlay(platform, {"alerts": {"receivers": receivers}})
    return gitops.for_phase(platform, gitops.read(ROOT)).application("victoria-metrics-stack").values


def without_waits(value: Any, folder: Path) -> Any:
    """A configuration with waits of a second, and its Secret in a folder of the test."""
    if isinstance(value, dict):
        waits = {"group_wait", "group_interval"}
        return {key: "1s" if key in waits else without_waits(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_waits(item, folder) for item in value]
    return value.replace("/etc/vm/secrets", str(folder)) if isinstance(value, str) else value


def start(stack: ExitStack, command: list[str], log: Path) -> None:
    process = subprocess.Popen(command, stdout=stack.enter_context(log.open("wb")), stderr=subprocess.STDOUT)
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def serve(stack: ExitStack, server: socketserver.BaseServer) -> str:
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def world(alerting: Path, tmp_path: Path) -> Iterator[World]:
    world = World()
    with ExitStack() as stack:
        url, smarthost = f"http://{serve(stack, http_server(world))}", serve(stack, smtp_server(world))
        values = monitoring(smarthost)
        config = without_waits(values["alertmanager"]["config"], tmp_path)
        secret = tmp_path / values["alertmanager"]["spec"]["secrets"][0]
        secret.mkdir()
        for receiver in RECEIVERS:
            (secret / str(receiver["name"])).write_text(
                "routing-key" if receiver["type"] == "pagerduty" else f"{url}/{receiver['name']}"
            )
        config["global"] = {"pagerduty_url": f"{url}/pager"}
        (tmp_path / "alertmanager.yaml").write_text(yaml.safe_dump(config))
        checked = [alerting / "amtool", "check-config", tmp_path / "alertmanager.yaml"]
        subprocess.run(checked, check=True, capture_output=True, timeout=200)
        groups = yaml.safe_load(RULES.read_text())["spec"]["groups"]
        for rule in (rule for group in groups for rule in group["rules"]):
            rule.pop("for", None)
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
        listen = f"127.0.0.1:{free_port()}"
        words = ["--cluster.listen-address=", f"--web.listen-address={listen}", f"--storage.path={tmp_path / 'state'}"]
        words += [
            f"--web.external-url={values['alertmanager']['spec']['externalURL']}",
            "--web.route-prefix=/",
            f"--config.file={tmp_path / 'alertmanager.yaml'}",
        ]
        start(stack, [str(alerting / "alertmanager"), *words], tmp_path / "alertmanager.log")
        grafana = values["external"]["grafana"]["host"]
        source = (
            'explore?left={"datasource":"VictoriaMetrics","queries":[{"expr":{{ .Expr|jsonEscape|queryEscape }},'
            '"refId":"A"}],"range":{"from":"{{ .ActiveAt.UnixMilli }}","to":"now"}}'
        )  # as the chart writes it
        words = [f"-datasource.url={url}", f"-notifier.url=http://{listen}", f"-rule={tmp_path / 'rules.yaml'}"]
        words += [f"-external.url={grafana}", f"-external.alert.source={source}", "-evaluationInterval=1s"]
        words += [f"-httpListenAddr=127.0.0.1:{free_port()}"]
        start(stack, [str(alerting / "vmalert"), *words], tmp_path / "vmalert.log")
        yield world


def test_an_alert_reaches_every_receiver_in_one_message_with_links_to_grafana(world: World) -> None:
    groups = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    rules = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}
    world.series = {
        rules["NodeNotReady"]: [{"node": "worker-1"}, {"node": "worker-2"}],
        rules["Watchdog"]: [{}],
    }
    nodes = {("NodeNotReady", "worker-1"), ("NodeNotReady", "worker-2")}
    until(lambda: world.alerts("hook") == nodes, "the alert at the webhook")
    until(lambda: world.alerts("dead-man") == {("Watchdog", "")}, "the watchdog at its receiver alone")
    until(lambda: world.of("chat") and world.of("pager"), "Slack and PagerDuty")
    until(lambda: any("NodeNotReady" in mail for mail in world.mails), "the e-mail")

    group = world.of("hook")[0]
    assert {alert["labels"]["node"] for alert in group["alerts"]} == {"worker-1", "worker-2"}
    alert = group["alerts"][0]
    assert alert["annotations"]["summary"] == f"{alert['labels']['node']} has not been Ready for five minutes"
    link = unquote_plus(alert["generatorURL"])
    assert link.startswith("https://grafana.fluodata.example.org/explore?left=")
    assert rules["NodeNotReady"] in link.replace('\\"', '"')
    chat = world.of("chat")[0]
    assert chat["channel"] == "#ops"
    assert "|Grafana>" in chat["attachments"][0]["text"]
    assert {body["payload"]["severity"] for body in world.of("pager")} == {"critical"}

    # A node that is not Ready explains what else fires on it; what fires on another one is sent, and not to PagerDuty.
    pressure = [{"node": node, "condition": "DiskPressure"} for node in ("worker-1", "worker-3")]
    world.series = {**world.series, rules["NodeUnderPressure"]: pressure}
    until(lambda: ("NodeUnderPressure", "worker-3") in world.alerts("hook"), "the second alert")
    assert ("NodeUnderPressure", "worker-1") not in world.alerts("hook")
    assert "NodeUnderPressure" not in json.dumps(world.of("pager"))
