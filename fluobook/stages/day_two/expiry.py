"""What expires on a platform, when, and what renews it: authorities, client certificates, servers, TLS Secrets.

Only reads. What cannot be read from outside a node is not here: etcd's own certificates, and those with which the
controllers of the control plane connect to the API; Talos renews them.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509

from fluobook.clients.https import Target, reason_of, shown_certificate
from fluobook.clients.kube import Kube
from fluobook.context import RunContext
from fluobook.display.table import Cell, Table
from fluobook.errors import AccessDenied, FluobookError
from fluobook.machine import pki
from fluobook.machine.access import RENEW_BEFORE, remaining
from fluobook.params import KUBERNETES_PORT
from fluobook.stages.core.check import Check, count
from fluobook.stages.core.cluster import Missing, api
from fluobook.stages.core.executor import in_parallel

AUTHORITIES = {"talos": "Talos", "kubernetes": "Kubernetes", "aggregator": "the API's aggregator", "etcd": "etcd"}
"""The authorities in the bundle, by their fields."""
ROTATED = {"talos": "talos_ca", "kubernetes": "kubernetes_ca"}
"""The authorities that can be rotated, and their fields in `rotate` of the params."""
YEAR = dt.timedelta(days=365)
HOUR = dt.timedelta(hours=1)
BY_TALOS = "Talos, at half of its life"


@dataclass(frozen=True)
class Expiring:
    """Something that expires.

    Args:
        kind: "authority", "client", "token", "server" or "secret".
        name: what it is.
        renewal: what renews it.
        expires: when it ends; None if that is not known, or it never does.
        problem: why it is not known.
        limit: how long before its end it should have been renewed.
    """

    kind: str
    name: str
    renewal: str
    expires: dt.datetime | None = None
    problem: str = ""
    limit: dt.timedelta = RENEW_BEFORE

    def is_due(self, now: dt.datetime) -> bool:
        """Whether it should have been renewed."""
        return self.expires is not None and self.expires - now < self.limit

    def left(self, now: dt.datetime) -> str:
        """How long it lasts, for people."""
        return remaining(self.expires, now) if self.expires else self.problem or "never expires"


def read(context: RunContext) -> Sequence[Expiring]:
    """Everything that expires and can be read; a system that does not answer is named in its rows."""
    if not context.secrets.has_bundle():
        return ()
    kube = api(context)
    readers: list[Callable[[], Iterable[Expiring]]] = [
        lambda: _authorities(context),
        lambda: _files(context),
        lambda: _tokens(context),
        lambda: _servers(context),
    ]
    if not isinstance(kube, Missing):
        readers += [lambda: _kubelets(context, kube), lambda: _secrets(context, kube)]
    return [entry for each in in_parallel(lambda reader: list(reader()), readers) for entry in each]


def _authorities(context: RunContext) -> Iterator[Expiring]:
    bundle = context.secrets.bundle()
    for name, title in AUTHORITIES.items():
        renewal = f"rotate.{ROTATED[name]} in the params" if name in ROTATED else "only a new cluster"
        end = pki.certificate(getattr(bundle, name).crt).not_valid_after_utc
        yield Expiring("authority", f"authority of {title}", renewal, end, limit=YEAR)


def _files(context: RunContext) -> Iterator[Expiring]:
    for name, file in context.secrets.access_files(context.platform, context.home).items():
        yield Expiring("client", name, "this runbook, stage 3", file.expires, file.problem)


def _tokens(context: RunContext) -> Iterator[Expiring]:
    """The API tokens of Proxmox VE; when one ends is shown only to those who may modify users."""
    for endpoint in context.platform.proxmox:
        user, _, own = endpoint.token_id.rpartition("!")
        name, renewal = f"API token of Proxmox VE endpoint {endpoint.name}", "you: make a new token, and set token_id"
        try:
            tokens = context.proxmox(endpoint.name).tokens(user)
        except AccessDenied:
            continue
        except FluobookError as error:
            yield Expiring("token", name, renewal, problem=f"not read: {error.message}")
            continue
        end = next((int(token.get("expire") or 0) for token in tokens if token["tokenid"] == own), 0)
        yield Expiring("token", name, renewal, dt.datetime.fromtimestamp(end, dt.UTC) if end else None)


def _servers(context: RunContext) -> Iterable[Expiring]:
    platform = context.platform
    targets = []
    for node in platform.nodes:
        address = context.talos.address(node)
        target = Target(address.name, address.port, address=(address.host, address.port))
        targets.append((f"Talos API of {node.name}", BY_TALOS, target, HOUR))
    for node in platform.control_planes:
        target = Target(node.address, KUBERNETES_PORT, address=platform.route(node.address, KUBERNETES_PORT))
        targets.append((f"Kubernetes API of {node.name}", BY_TALOS, target, RENEW_BEFORE))
    for each in platform.proxmox:
        target = Target(each.host, each.port, address=platform.route(each.host, each.port))
        targets.append((f"Proxmox VE endpoint {each.name}", "Proxmox VE (pvecm updatecerts, or ACME)", target, HOUR))
    return in_parallel(lambda each: _server(*each), targets)


def _server(name: str, renewal: str, target: Target, limit: dt.timedelta) -> Expiring:
    try:
        shown = x509.load_der_x509_certificate(shown_certificate(target))
    except (OSError, ValueError) as error:
        return Expiring("server", name, renewal, problem=f"not read: {reason_of(error)}", limit=limit)
    return Expiring("server", name, renewal, shown.not_valid_after_utc, limit=limit)


def _kubelets(context: RunContext, kube: Kube) -> Iterator[Expiring]:
    now = dt.datetime.now(dt.UTC)
    for node in context.platform.nodes:
        name, renewal = f"kubelet of {node.name}", "the kubelet; approve-csrs approves"
        try:
            days = kube.serving_certificate_days(node.name)
        except FluobookError as error:
            yield Expiring("server", name, renewal, problem=f"not read: {error.message}")
            continue
        end = None if days is None else now + dt.timedelta(days=days, minutes=1)
        yield Expiring("server", name, renewal, end, "" if end else "has no certificate yet")


def _secrets(context: RunContext, kube: Kube) -> Iterator[Expiring]:
    """The TLS Secrets of the cluster, of cert-manager and of everybody else."""
    try:
        secrets = kube.list("v1", "Secret", fields="type=kubernetes.io/tls")
    except FluobookError as error:
        yield Expiring("secret", "TLS Secrets", "", problem=f"not read: {error.message}")
        return
    for secret in secrets:
        data, metadata = secret.get("data") or {}, secret["metadata"]
        issued = "cert-manager.io/certificate-name" in (metadata.get("annotations") or {})
        name = f"Secret {metadata.get('namespace')}/{metadata['name']}"
        renewal = "cert-manager" if issued else "what made it: Helm, an operator, or a person"
        try:
            context.redactor.add(base64.b64decode(str(data.get("tls.key", ""))).decode())
            crt = pki.certificate(base64.b64decode(str(data.get("tls.crt", ""))).decode())
        except (FluobookError, binascii.Error, UnicodeDecodeError):
            yield Expiring("secret", name, renewal, problem="holds no certificate that can be read")
            continue
        span = crt.not_valid_after_utc - crt.not_valid_before_utc
        yield Expiring("secret", name, renewal, crt.not_valid_after_utc, limit=min(RENEW_BEFORE, span / 4))


def table(expiring: Iterable[Expiring], now: dt.datetime) -> Table:
    """All of it, what should have been renewed marked. Without dates, so that it reads the same in every run."""
    rows = []
    for each in expiring:
        tone = "bad" if each.is_due(now) else "wait" if each.problem else "ok"
        rows.append([each.kind, each.name, Cell(each.left(now), tone), each.renewal])
    note = "etcd's own certificates last as long as its authority; controllers' are renewed by Talos at half of theirs"
    return Table("what expires", ["kind", "what", "lasts", "renewed by"], rows, note=note)


CHECKS = {
    "authority": "every authority lasts for more than a year",
    "client": "kubeconfig and talosconfig last for more than 30 days",
    "token": "API tokens of Proxmox VE last for more than 30 days",
    "server": "the certificates of servers are renewed in time",
    "secret": "the certificates in TLS Secrets are renewed in time",
}
"""One check for each kind."""


def checks(expiring: Sequence[Expiring], now: dt.datetime) -> Iterator[Check]:
    """Whether what expires was renewed in time; what was not read counts as failed."""
    for kind, name in CHECKS.items():
        of_kind = [each for each in expiring if each.kind == kind]
        late = [f"{e.name} ({e.left(now)})" for e in of_kind if e.is_due(now) or e.problem]
        remedies = dict.fromkeys(f"{e.name}: {e.renewal}" for e in of_kind if e.is_due(now) or e.problem)
        yield Check(name, not late, count(len(of_kind), late), "; ".join(remedies))
