"""The receivers of the params in Alertmanager's own form. It reads every credential from a file of one Secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.params.alerts import NOBODY, SEVERITIES

if TYPE_CHECKING:
    from fluobook.params import Platform
    from fluobook.params.alerts import Receiver

SECRET = "alertmanager-receivers"  # noqa: S105 (its name)
"""The Secret with the credentials, each under the name of its receiver."""
NAMESPACE = "monitoring"
FILE = f"infrastructure/monitoring/secrets/{SECRET}"
"""The file of the Secret as notebook 10_secrets names it."""
_FOLDER = f"/etc/vm/secrets/{SECRET}"
"""Where VictoriaMetrics' operator mounts a Secret of VMAlertmanager."""
_WATCHDOG = "watchdog"
_SLACK_TEXT = (
    "{{ range .Alerts }}{{ .Annotations.summary }} (<{{ .GeneratorURL }}|Grafana>,"
    " <{{ .Annotations.runbook_url }}|what to do>)\n{{ end }}"
)
_LINK = "{{ (index .Alerts 0).GeneratorURL }}"


def values_of(platform: Platform) -> dict[str, Any]:
    """The values that the monitoring Application's template names: receivers, routes by severity, the Secret."""
    receivers = platform.alerts.receivers
    return {
        "alerts.receivers": [{"name": NOBODY}, *map(_configuration, receivers)],
        "alerts.secrets": [SECRET] if credentials(platform) else [],
        **{
            f"alerts.{lane}": [
                {"receiver": receiver.name, "continue": True} for receiver in receivers if lane in _lanes(receiver)
            ]
            for lane in (*SEVERITIES, _WATCHDOG)
        },
    }


def credentials(platform: Platform) -> list[str]:
    """The keys that the Secret must have."""
    return [receiver.name for receiver in platform.alerts.receivers if receiver.has_credential]


def _lanes(receiver: Receiver) -> tuple[str, ...]:
    return (_WATCHDOG,) if receiver.type == _WATCHDOG else receiver.severities


def _configuration(receiver: Receiver) -> dict[str, Any]:
    """A receiver of Alertmanager; its fields are those of the integration's `*_config`."""
    file = f"{_FOLDER}/{receiver.name}"
    if receiver.type == "email":
        login = {"auth_username": receiver.username, "auth_password_file": file} if receiver.username else {}
        settings: dict[str, Any] = {
            "to": ", ".join(receiver.to or ()),
            "from": receiver.sender,
            "smarthost": receiver.smarthost,
            "require_tls": receiver.require_tls,
            **login,
        }
    elif receiver.type == "slack":
        channel = {"channel": receiver.channel} if receiver.channel else {}
        settings = {"api_url_file": file, "title_link": _LINK, "text": _SLACK_TEXT, **channel}
    elif receiver.type == "pagerduty":
        settings = {
            "routing_key_file": file,
            "severity": '{{ or .CommonLabels.severity "critical" }}',
            "links": [{"href": _LINK, "text": "Grafana"}],
        }
    else:
        settings = {"url_file": file}
    integration = "webhook" if receiver.type == _WATCHDOG else receiver.type
    return {
        "name": receiver.name,
        f"{integration}_configs": [{**settings, "send_resolved": receiver.type != _WATCHDOG}],
    }
