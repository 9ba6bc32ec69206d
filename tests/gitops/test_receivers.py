"""The receivers of the params: what Alertmanager gets, what is refused, and which credentials are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fluobook import gitops, params
from fluobook.errors import ParamsError
from fluobook.gitops.check import RULES, findings

FILE = "/etc/vm/secrets/alertmanager-receivers/"
MAIL = {"type": "email", "to": ["a@example.org", "b@example.org"], "sender": "c@example.org", "smarthost": "mail:587"}


def with_receivers(platform: Any, *receivers: dict[str, Any]) -> Any:
    return params.overlay(platform, {"alerts": {"receivers": list(receivers)}})


def alertmanager(platform: Any, tree: Any) -> dict[str, Any]:
    values = gitops.chart_source(gitops.for_phase(platform, tree), "victoria-metrics-stack").values
    return values["alertmanager"]


@pytest.mark.parametrize(
    ("receiver", "integration", "expected"),
    [
        (
            {**MAIL, "username": "u"},
            "email",
            {"to": "a@example.org, b@example.org", "auth_username": "u", "auth_password_file": FILE + "x"},
        ),
        ({**MAIL, "require_tls": False}, "email", {"require_tls": False, "smarthost": "mail:587"}),
        ({"type": "slack", "channel": "#ops"}, "slack", {"api_url_file": FILE + "x", "channel": "#ops"}),
        ({"type": "webhook"}, "webhook", {"url_file": FILE + "x", "send_resolved": True}),
        ({"type": "pagerduty"}, "pagerduty", {"routing_key_file": FILE + "x"}),
        ({"type": "watchdog"}, "webhook", {"url_file": FILE + "x", "send_resolved": False}),
    ],
)
def test_a_receiver_becomes_one_of_alertmanager(receiver, integration, expected, phase3, tree):
    config = alertmanager(with_receivers(phase3, {"name": "x", **receiver}), tree)["config"]
    nobody, made = config["receivers"]
    assert nobody == {"name": "nobody"}
    assert set(made) == {"name", f"{integration}_configs"}
    (settings,) = made[f"{integration}_configs"]
    assert settings.items() >= expected.items()
    assert [key for key in settings if key in ("auth_password", "api_url", "url", "routing_key")] == []


def test_severities_are_the_routes_and_the_watchdog_has_its_own(phase3, tree):
    receivers = (
        {"name": "mail", **MAIL},
        {"name": "pager", "type": "pagerduty", "severities": ["critical"]},
        {"name": "dead-man", "type": "watchdog"},
    )
    made = alertmanager(with_receivers(phase3, *receivers), tree)
    lanes = {
        tuple(route["matchers"]): [to["receiver"] for to in route["routes"]]
        for route in made["config"]["route"]["routes"]
    }
    assert lanes == {
        ('alertname="Watchdog"',): ["dead-man"],
        ('severity="critical"',): ["mail", "pager"],
        ('severity="warning"',): ["mail"],
    }
    assert made["spec"]["secrets"] == ["alertmanager-receivers"]


def test_without_a_credential_no_secret_is_mounted(phase3, tree):
    assert alertmanager(phase3, tree)["spec"]["secrets"] == []
    assert alertmanager(with_receivers(phase3, {"name": "mail", **MAIL}), tree)["spec"]["secrets"] == []


@pytest.mark.parametrize(
    ("receivers", "words"),
    [
        (
            [{"name": "x", "type": "email", "to": ["a@example.org"]}],
            "needs sender, smarthost, because its type is email",
        ),
        ([{"name": "x", "type": "slack", "to": ["a@example.org"]}], "has the key to, which type slack does not take"),
        (
            [{"name": "x", "type": "watchdog", "severities": ["critical"]}],
            "has the key severities, which type watchdog",
        ),
        ([{"name": "x", "type": "webhook", "url": "https://example.org/?t=1"}], "is not a known key"),
        ([{"name": "x", "type": "teams"}], "must be 'email', 'slack', 'webhook', 'pagerduty' or 'watchdog'"),
        ([{"name": "x", "type": "webhook", "severities": []}], "needs at least 1"),
        ([{"name": "x", "type": "webhook"}, {"name": "x", "type": "slack"}], "is used by platform.alerts.receivers[0]"),
        ([{"name": "nobody", "type": "webhook"}], "is used by Alertmanager's default route already"),
        ([{"name": "x", "type": "email", **MAIL, "smarthost": "mail"}], "must be host:port"),
    ],
)
def test_a_wrong_receiver_is_refused_with_the_reason(receivers, words, phase3):
    with pytest.raises(ParamsError) as refused:
        with_receivers(phase3, *receivers)
    (problem,) = refused.value.problems
    assert words in problem


@pytest.mark.parametrize(
    ("receivers", "expected"),
    [
        ([], ["nobody receives critical and warning alerts"]),
        ([{"name": "x", "type": "watchdog"}], ["nobody receives critical and warning alerts"]),
        ([{"name": "x", "type": "slack", "severities": ["warning"]}], ["nobody receives critical alerts"]),
        ([{"name": "x", "type": "slack"}], []),
    ],
)
def test_alerts_that_nobody_receives_are_a_warning(receivers, expected, phase3):
    sentences = [line for line in params.warnings(with_receivers(phase3, *receivers)) if "alerts" in line]
    assert [line.partition(":")[0] for line in sentences] == expected


def test_a_receiver_without_its_credential_is_a_finding(repository: Path):
    file = repository / "params/phase1.yaml"
    receivers = [{"name": "chat", "type": "slack"}, {"name": "pager", "type": "pagerduty"}, {"name": "mail", **MAIL}]
    file.write_text(file.read_text().replace("    receivers: []", f"    receivers: {receivers}"))
    rules = {"receiver": RULES["receiver"]}
    reported = findings(repository, rules)
    assert [(finding.file, finding.message.split()[1]) for finding in reported] == [
        ("params/phase1.yaml", "chat"),
        ("params/phase1.yaml", "pager"),
    ]
    assert "receivers:" in file.read_text().splitlines()[reported[0].line - 1]
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "alertmanager-receivers", "namespace": "monitoring"},
        "stringData": {"chat": "ENC[x]"},
    }
    folder = repository / "cluster-gitops/infrastructure/monitoring/secrets"
    (folder / "alertmanager-receivers.sops.yaml").write_text(yaml.safe_dump(secret))
    assert [finding.message.split()[1] for finding in findings(repository, rules)] == ["pager"]
