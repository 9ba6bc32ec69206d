"""What the nodes' logs report while Kubernetes does not come up.

Waiting does not fix a machine configuration with another authority, a wrong token or an unknown flag, and Kubernetes
cannot report it: the node's own logs can. A complaint that is repeated for a while is reported with the
field of the machine configuration that it is about.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

from fluobook.context import RunContext
from fluobook.errors import KUBECTL, TALOSCTL, FluobookError, Rejected
from fluobook.files import packaged
from fluobook.params import Node
from fluobook.stages.bootstrap_kubernetes.plan import CILIUM

API = "the API"
CONTROLLERS = ("kube-controller-manager", "kube-scheduler", "controller-runtime")
"""Logs of the first control plane that report why nothing happens although the API answers."""
DOUBT = 120.0
"""Seconds that the same complaint may repeat: some occur in every cluster that comes up."""
PAUSE = 5.0
"""Seconds between two reads of the logs."""
ANOTHER_NAME = "the HostnameConfig of a machine configuration gives another name than the params"

_PATTERNS: dict[str, Any] = packaged(__package__, "complaints.yaml")
SERIOUS, CERTAIN = (re.compile("|".join(_PATTERNS[name])) for name in ("serious", "certain"))
_INFORMATION = re.compile(r"[IW]\d{4} ")
_TIME = re.compile(r"^(?:[EF]\d{4} [\d:.]+ +\d+ \S+\] |\S*\d{2}:\d{2}:\d{2}\S* )")
_FIELD = re.compile(r"\b(?:machine|cluster)\.[a-zA-Z.]+[a-zA-Z]")


@dataclass
class Complaint:
    """The last serious message of a log, since when it is the same, and whether the log went on meanwhile."""

    message: str
    tail: str
    since: float
    repeated: bool = False


@dataclass
class Complaints:
    """Follows the logs that may report why one node does not come up.

    Args:
        context: the platform.
        node: what is waited for.
    """

    context: RunContext
    node: Node
    _known: dict[str, Complaint] = field(default_factory=dict)
    _read_at: float = 0.0
    _api: bool = False

    def check(self, *, api: bool) -> str:
        """What is complained of now, "" if nothing is.

        Args:
            api: whether the Kubernetes API answers; if so a kubelet's complaint is its node's own.

        Raises:
            Rejected: it has been the same for `DOUBT` seconds, made again and again.
        """
        if api is not self._api:
            self._api, self._known = api, {}
        if self._is_time():
            first = self.context.platform.control_planes[0]
            if api:
                own = ["controller-runtime", "kubelet"]
                own += ["kube-apiserver"] if self.node.role == "controlplane" else []
                logs = [(first, log) for log in CONTROLLERS] + [(self.node, log) for log in own]
            else:
                logs = [(first, log) for log in ("controller-runtime", "kube-apiserver")]
            for node, log in dict.fromkeys(logs):
                self._read(node, log)
            if api:
                self._require_name()
            else:
                self._request_version()
        return self._summary()

    def of_the_network(self) -> str:
        """What is missing for a registered node to become Ready, "" if nothing is.

        Raises:
            Rejected: it has been missing for `DOUBT` seconds, or its node goes by another name.
        """
        if self._is_time():
            self._known = {name: line for name, line in self._known.items() if not name.startswith("kubelet ")}
            first = self.context.platform.control_planes[0]
            for log in CONTROLLERS:
                self._read(first, log, only_certain=True)
            daemonsets = self.context.kube().list("apps/v1", "DaemonSet", "kube-system", labels=CILIUM)
            message = f"no DaemonSet in kube-system is Cilium's ({CILIUM}), so no network comes up"
            advice = (
                f"`{TALOSCTL} -n {first.address} logs controller-runtime` shows what became of cluster.inlineManifests"
            )
            self._record(API, "" if daemonsets else message, str(self._read_at), advice)
        return self._summary()

    def _is_time(self) -> bool:
        """Whether the logs are to be read again; notes the time if so."""
        if time.monotonic() - self._read_at < PAUSE:
            return False
        self._read_at = time.monotonic()
        return True

    def _require_name(self) -> None:
        """A wait for a machine whose Kubernetes name is another one would be in vain."""
        ours = {node.name for node in self.context.platform.nodes}
        strangers = [node for node in self.context.kube().list("v1", "Node") if node["metadata"]["name"] not in ours]
        names = ", ".join(sorted(node["metadata"]["name"] for node in strangers))
        for node in strangers:
            addresses = [address.get("address") for address in (node.get("status") or {}).get("addresses") or ()]
            if self.node.address in addresses:
                name = node["metadata"]["name"]
                raise Rejected(
                    f"Kubernetes knows the machine at {self.node.address} as {name}, not as {self.node.name}",
                    system="kubernetes",
                    cause=ANOTHER_NAME,
                    remedy=f"compare with `fluobook render`, apply it again, then {KUBECTL} delete node {name}",
                )
        message = f"nodes that the params do not name: {names}; {ANOTHER_NAME}" if strangers else ""
        self._record(API, message, str(self._read_at), "compare HostnameConfig with the params")

    def _request_version(self) -> None:
        """Why the API does not answer us: perhaps its certificate is not our cluster's."""
        try:
            self.context.kube().version()
        except FluobookError as error:
            message = f"{error.message} {error.cause} {getattr(error, 'detail', '')}"
            self._record(API, serious(message), message, "compare cluster.ca with the bundle")

    def _summary(self) -> str:
        return "; ".join(f"{log}: {complaint.message}" for log, complaint in self._known.items())

    def _read(self, node: Node, log: str, *, only_certain: bool = False) -> None:
        try:
            tail = self.context.talos.client(node).logs(log)
        except FluobookError:
            return
        message = serious(tail)
        message = "" if only_certain and not CERTAIN.search(message) else message
        self._record(f"{log} on {node.name}", message, tail, f"`{TALOSCTL} -n {node.address} logs {log}`")

    def _record(self, name: str, message: str, tail: str, advice: str) -> None:
        now, before = time.monotonic(), self._known.get(name)
        if not message:
            self._known.pop(name, None)
        elif before is None or before.message != message:
            self._known[name] = Complaint(message, tail, now)
        else:
            before.repeated = before.repeated or tail != before.tail or name == API
            if before.repeated and (CERTAIN.search(message) or now - before.since >= DOUBT):
                cause = (
                    field_of(name, message) or "a field that the log does not name: an authority, a token, an address"
                )
                raise Rejected(
                    f"{self.node.name} does not come up: {name} says: {message}",
                    system="talos",
                    cause=f"wrong in the machine configuration: {cause}",
                    remedy=f"{advice}; compare with `fluobook render`, correct it, then run again from"
                    " apply-talos-config",
                )


def serious(tail: str, longest: int = 400) -> str:
    """The last line of a log that names a problem that waiting does not fix, without its time; "" if there is none."""
    lines = [_TIME.sub("", line.strip()) for line in tail.splitlines() if not _INFORMATION.match(line)]
    return next((line[:longest] for line in reversed(lines) if SERIOUS.search(line)), "")


def field_of(log: str, message: str) -> str:
    """The field that a complaint is about, "" if its message does not name it.

    Args:
        log: the log with the complaint, such as "kubelet on talos-worker-1".
        message: the complaint.
    """
    if named := _FIELD.search(message):
        return named.group()
    sections: dict[str, str] = _PATTERNS["sections"]
    program = next((name for name in sections if name in message), log.partition(" ")[0])
    fields: dict[str, str] = _PATTERNS["fields"]
    path = next((path for pattern, path in fields.items() if re.search(pattern, message)), "")
    return path.format(section=sections.get(program, "cluster.apiServer"))
