"""Who receives alerts. Passwords and webhook URLs are credentials: they are in a Secret, never in the params."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fluobook.params.fields import Distinct, Email, Flag, Handle, HostPort, Model, Name
from fluobook.params.problems import refuse

Severity = Literal["critical", "warning"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning")
"""The severities that somebody receives."""
NOBODY = "nobody"
"""The receiver of alerts that no route leads to anybody."""
_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "email": ({"sender", "smarthost", "to"}, {"require_tls", "severities", "username"}),
    "slack": (set(), {"channel", "severities"}),
    "webhook": (set(), {"severities"}),
    "pagerduty": (set(), {"severities"}),
    "watchdog": (set(), set()),
}
"""The keys that a receiver of each type must have, and those that it may have."""


class Receiver(Model):
    """Somebody who receives alerts; its credential has the receiver's name in the Secret alertmanager-receivers."""

    name: Name
    """Name of the receiver, and the key of its credential."""
    type: Literal["email", "slack", "webhook", "pagerduty", "watchdog"]
    """The service; watchdog is a dead man's switch: a webhook that gets the alert Watchdog every five minutes."""
    severities: Annotated[tuple[Severity, ...], Field(min_length=1), Distinct] = SEVERITIES
    """The severities that it receives: critical, warning, or both."""
    to: Annotated[tuple[Email, ...], Field(min_length=1), Distinct] | None = None
    """E-mail: the addresses."""
    sender: Email | None = None
    """E-mail: the address in From."""
    smarthost: HostPort | None = None
    """E-mail: host:port of the SMTP server, such as mail.example.org:587."""
    username: Handle | None = None
    """E-mail: user name at the SMTP server; its password is the credential. null for a server without a login."""
    require_tls: Flag = True
    """E-mail: whether the SMTP server must offer TLS."""
    channel: Handle | None = None
    """Slack: the channel, if it is not the webhook's own."""

    @model_validator(mode="after")
    def _has_the_keys_of_its_type(self) -> Receiver:
        needed, allowed = _KEYS[self.type]
        given = {name for name in self.model_fields_set if getattr(self, name) is not None} - {"name", "type"}
        if missing := needed - given:
            raise refuse(f"needs {', '.join(sorted(missing))}, because its type is {self.type}", _meant(self.type))
        if surplus := given - needed - allowed:
            keys = f"key{'s' if len(surplus) > 1 else ''} {', '.join(sorted(surplus))}"
            raise refuse(f"has the {keys}, which type {self.type} does not take", _meant(self.type))
        return self

    @property
    def has_credential(self) -> bool:
        """Whether it needs a password, a URL or a key."""
        return self.type != "email" or self.username is not None


def _meant(kind: str) -> str:
    return f"{kind} has {', '.join(sorted(set.union(*_KEYS[kind]))) or 'only a name'}; the credential is in a Secret"


class Alerts(Model):
    """Alerts."""

    receivers: tuple[Receiver, ...] = ()
    """Who receives them; with none, alerts are shown in Grafana alone."""
