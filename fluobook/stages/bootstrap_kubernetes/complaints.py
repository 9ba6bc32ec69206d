"""What the nodes' logs report while Kubernetes does not come up.

Waiting does not fix a machine configuration with another authority, a wrong token or an unknown flag, and Kubernetes
cannot report it: the node's own logs can. A complaint that is repeated for a while is reported with the
field of the machine configuration that it is about.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluobook.errors import FluobookError, Rejected
from fluobook.stages.bootstrap_kubernetes.plan import CILIUM

if TYPE_CHECKING:
    from fluobook.context import RunContext
    from fluobook.params import Node


API = "the API"
CONTROLLERS = ("kube-controller-manager", "kube-scheduler", "controller-runtime")
"""Logs of the first control plane that report why nothing happens although the API answers."""
DOUBT = 120.0
"""Seconds that the same complaint may repeat: some occur in every cluster that comes up."""
PAUSE = 5.0
"""Seconds between two reads of the logs."""
SERIOUS = re.compile(
    r"x509:|certificate|Unauthorized|[Ff]orbidden|PrivateKey|the machine configuration|no such host"
    r"|no route to host|^Error:|command failed|ended with exit|invalid|no suitable node IP|error applying|extra arg",
)
CERTAIN = re.compile(
    r"the machine configuration|unknown flag|PrivateKey|extra arg|no suitable node IP|signed by unknown authority"
    r"|(?:^Error: |command failed|ended with exit code)(?!.*(?:deadline|etcd|refused|timed? ?out))",
)
"""Messages that only a wrong setting or key causes; a repeated one is reported at once."""
_CALM = re.compile(r"[IW]\d{4} ")
ANOTHER_NAME = "the HostnameConfig of a machine configuration gives another name than the params"
UNTOLD = "an authority, a token, an address, or a setting"
LONGEST = 400
MANIFESTS = "`talosctl -n {} logs controller-runtime` shows what became of cluster.inlineManifests"
_TIME = re.compile(r"^(?:[EF]\d{4} [\d:.]+ +\d+ \S+\] |\S*\d{2}:\d{2}:\d{2}\S* )")


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
        if time.monotonic() - self._read_at >= PAUSE:
            self._read_at = time.monotonic()
            for node, log in self._logs(api=api):
                self._read(node, log)
            if api:
                self._named_otherwise()
            else:
                self._ask()
        return self._summary()

    def _logs(self, *, api: bool) -> list[tuple[Node, str]]:
        first = self.context.platform.control_planes[0]
        if not api:
            return [(first, "controller-runtime"), (first, "kube-apiserver")]
        controllers = [(first, log) for log in CONTROLLERS]
        own = [(self.node, "controller-runtime"), (self.node, "kubelet")]
        served = [(self.node, "kube-apiserver")] if self.node.role == "controlplane" else []
        return list(dict.fromkeys([*controllers, *served, *own]))

    def of_the_network(self) -> str:
        """What is missing for a registered node to become Ready, "" if nothing is.

        Raises:
            Rejected: it has been missing for `DOUBT` seconds, or its node goes by another name.
        """
        if time.monotonic() - self._read_at >= PAUSE:
            self._read_at = time.monotonic()
            self._known = {name: line for name, line in self._known.items() if not name.startswith("kubelet ")}
            first = self.context.platform.control_planes[0]
            for log in CONTROLLERS:
                self._read(first, log, only_certain=True)
            daemonsets = self.context.kube().list("apps/v1", "DaemonSet", "kube-system", labels=CILIUM)
            message = (
                "" if daemonsets else f"no DaemonSet in kube-system is Cilium's ({CILIUM}), so no network comes up"
            )
            self._record(API, message, str(self._read_at), MANIFESTS.format(first.address))
        return self._summary()

    def _named_otherwise(self) -> None:
        """A machine whose Kubernetes name is another one would be waited for in vain."""
        ours = {node.name for node in self.context.platform.nodes}
        strangers = [node for node in self.context.kube().list("v1", "Node") if node["metadata"]["name"] not in ours]
        names = ", ".join(sorted(node["metadata"]["name"] for node in strangers))
        for node in strangers:
            addresses = [address.get("address") for address in (node.get("status") or {}).get("addresses") or ()]
            if self.node.address in addresses:
                message = f"Kubernetes knows the machine at {self.node.address} as {names}, not as {self.node.name}"
                remedy = f"compare with `fluobook render`, apply it again, then kubectl delete node {names}"
                raise Rejected(message, system="kubernetes", cause=ANOTHER_NAME, remedy=remedy)
        message = f"nodes that the params do not name: {names}; {ANOTHER_NAME}" if strangers else ""
        self._record(API, message, str(self._read_at), "compare HostnameConfig with the params")

    def _summary(self) -> str:
        return "; ".join(f"{log}: {complaint.message}" for log, complaint in self._known.items())

    def _read(self, node: Node, log: str, *, only_certain: bool = False) -> None:
        try:
            tail = self.context.talos.client(node).logs(log)
        except FluobookError:
            return
        message = serious(tail)
        message = "" if only_certain and not CERTAIN.search(message) else message
        self._record(f"{log} on {node.name}", message, tail, f"`talosctl -n {node.address} logs {log}`")

    def _ask(self) -> None:
        """Why the API does not answer us: it may, with a certificate that is not our cluster's."""
        try:
            self.context.kube().version()
        except FluobookError as error:
            message = f"{error.message} {error.cause} {getattr(error, 'detail', '')}"
            self._record(API, serious(message), message, "compare cluster.ca with the bundle")

    def _record(self, name: str, message: str, tail: str, advice: str) -> None:
        now = time.monotonic()
        if not message:
            self._known.pop(name, None)
            return
        before = self._known.get(name)
        if before is None or before.message != message:
            self._known[name] = Complaint(message, tail, now)
            return
        before.repeated = before.repeated or tail != before.tail or name == API
        if before.repeated and (CERTAIN.search(message) or now - before.since >= DOUBT):
            raise Rejected(
                f"{self.node.name} does not come up: {name} says: {message}",
                system="talos",
                cause=f"wrong in the machine configuration: {field_of(name, message) or UNTOLD}",
                remedy=f"{advice}; compare with `fluobook render`, correct it, then run again from apply-talos-config",
            )


def serious(tail: str) -> str:
    """The last line of a log that names a problem that waiting does not fix, without its time; "" if there is none."""
    lines = [_TIME.sub("", line.strip()) for line in tail.splitlines() if not _CALM.match(line)]
    return next((line[:LONGEST] for line in reversed(lines) if SERIOUS.search(line)), "")


_SECTIONS = {
    "kubelet": "machine.kubelet",
    "kube-apiserver": "cluster.apiServer",
    "kube-controller-manager": "cluster.controllerManager",
    "kube-scheduler": "cluster.scheduler",
}
_FIELDS = (
    (r"flag|extra arg", "{section}.extraArgs"),
    (r"no suitable node IP", "machine.kubelet.nodeIP.validSubnets"),
    (r"Unauthorized", "cluster.token, of the node or of the control plane"),
    (r"no route to host|no such host", "cluster.controlPlane.endpoint"),
    (
        r"unknown authority|CERTIFICATE_VERIFY|x509: certificate",
        "cluster.ca, of the node or of the control plane",
    ),
    (r"audit", "cluster.apiServer.auditPolicy"),
    (r"[Aa]dmission|PodSecurity", "cluster.apiServer.admissionControl"),
    (r"encryption|secretbox|aescbc", "cluster.secretboxEncryptionSecret"),
    (r"service-account", "cluster.serviceAccount.key"),
    (r"CIDR|cidr|service-cluster-ip", "cluster.network"),
    (r"error applying manifest", "cluster.inlineManifests"),
    (r"authorization", "cluster.apiServer.authorizationConfig"),
)
_NAMED = re.compile(r"\b(?:machine|cluster)\.[a-zA-Z.]+[a-zA-Z]")


def field_of(log: str, message: str) -> str:
    """The field that a complaint is about, "" if its message does not name it.

    Args:
        log: the log with the complaint, such as "kubelet on talos-worker-1".
        message: the complaint.
    """
    if named := _NAMED.search(message):
        return named.group()
    section = next((path for program, path in _SECTIONS.items() if program in message), "")
    section = section or next(
        (path for program, path in _SECTIONS.items() if log.startswith(program)), "cluster.apiServer"
    )
    return next((field.format(section=section) for pattern, field in _FIELDS if re.search(pattern, message)), "")
