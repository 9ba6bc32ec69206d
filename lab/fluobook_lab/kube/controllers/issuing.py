"""cert-manager with an authority of the lab: who asks for certificates, who has them.

With the fault `kube.issuer-unreachable`, no ACME server answers: issuers do not register, and their certificates stay
pending.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from fluobook.machine.pki import issue, new_authority
from fluobook_lab.kube.controllers.loop import Delays, is_named, running
from fluobook_lab.kube.objects import (
    annotations_of,
    name_of,
    namespace_of,
    owner_reference,
    with_condition,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

UNREACHABLE = "kube.issuer-unreachable"
API, GATEWAY_API = "cert-manager.io/v1", "gateway.networking.k8s.io/v1"
CLUSTER_ISSUER, ISSUER = "cert-manager.io/cluster-issuer", "cert-manager.io/issuer"
KINDS = {
    ("networking.k8s.io", "ingresses"): ("networking.k8s.io/v1", "Ingress"),
    ("gateway.networking.k8s.io", "gateways"): (GATEWAY_API, "Gateway"),
    ("cert-manager.io", "certificates"): (API, "Certificate"),
    ("cert-manager.io", "clusterissuers"): (API, "ClusterIssuer"),
    ("cert-manager.io", "issuers"): (API, "Issuer"),
}
ISSUE_SECONDS = (1.0, 4.0)
NOT_REGISTERED = (
    "Failed to register ACME account: Get {server!r}: dial tcp: lookup {host}: network is unreachable"  # as in v1.21
)


class Issuing:
    """Certificates for what asks for them.

    Args:
        store: the cluster.
        clock: the lab's clock.
        seed: makes delays the same in every run.
        faults: `kube.issuer-unreachable`.
    """

    def __init__(self, store: Store, clock: Clock, seed: int, faults: Faults) -> None:
        self._store, self._faults = store, faults
        self._delays = Delays(clock, seed)
        self.sources: Sources = {resource: self._keys_of(resource) for resource in KINDS}
        self.sources[("apps", "deployments")] = self._on_deployment

    def _keys_of(self, resource: Key) -> Any:
        return lambda obj: [(f"{'/'.join(resource)}/{namespace_of(obj)}", name_of(obj))]

    def _all(self, *resources: Key) -> Iterator[Key]:
        for resource in resources:
            for key, _ in self._store.storage.scan(resource):
                yield f"{'/'.join(resource)}/{key[0]}", key[1]

    def _on_deployment(self, deployment: Obj) -> list[Key]:
        return list(self._all(*KINDS)) if is_named(deployment, "cert-manager") else []

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        group, plural, namespace = key[0].split("/")
        version, kind = KINDS[group, plural]
        if self._store.registry.find(version, kind) is None:
            return None
        obj = self._store.find(version, kind, key[1], namespace)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        if not running(self._store, "cert-manager"):
            return None
        if kind in ("Ingress", "Gateway"):
            if self._store.registry.find(API, "Certificate"):
                self._request(obj)
            return None
        left = self._delays.left(obj["metadata"]["uid"], f"issue/{key}", ISSUE_SECONDS)
        if left > 0:
            return left
        if kind == "Certificate":
            self._certify(obj)
        else:
            self._register(obj)
        return None

    def _request(self, obj: Obj) -> None:
        """A Certificate for each Secret that an annotated Ingress or Gateway names."""
        notes = annotations_of(obj)
        issuer = notes.get(CLUSTER_ISSUER) or notes.get(ISSUER)
        kind = "ClusterIssuer" if CLUSTER_ISSUER in notes else "Issuer"
        for secret, hosts in _wanted(obj).items() if issuer else ():
            if self._store.find(API, "Certificate", secret, namespace_of(obj)) is None:
                metadata = {"name": secret, "namespace": namespace_of(obj), "ownerReferences": [owner_reference(obj)]}
                reference = {"group": "cert-manager.io", "kind": kind, "name": issuer}
                spec: Obj = {"secretName": secret, "dnsNames": hosts, "issuerRef": reference}
                self._store.create({"apiVersion": API, "kind": "Certificate", "metadata": metadata, "spec": spec})

    def _register(self, issuer: Obj) -> None:
        acme = issuer["spec"].get("acme")
        if acme and self._faults.on(UNREACHABLE):
            server = acme["server"]
            host = server.split("/")[2]
            message = NOT_REGISTERED.format(server=server, host=host)
            self._report(issuer, ("Ready", "False", "ErrRegisterACMEAccount", message))
        else:
            message = "The ACME account was registered with the ACME server" if acme else ""
            self._report(issuer, ("Ready", "True", "ACMEAccountRegistered" if acme else "IsReady", message))

    def _certify(self, certificate: Obj) -> None:
        """Make the Secret, with a key pair of an authority that nobody keeps, unless the issuer is not ready."""
        spec, namespace = certificate["spec"], namespace_of(certificate)
        reference = spec.get("issuerRef") or {}
        kind = reference.get("kind", "Issuer")
        issuer = self._store.find(API, kind, reference.get("name", ""), "" if kind == "ClusterIssuer" else namespace)
        is_acme = issuer is not None and "acme" in issuer["spec"]
        if is_acme and self._faults.on(UNREACHABLE):
            waiting = f"Issuing certificate as Secret does not exist; issuer {reference['name']} is not ready"
            self._report(
                certificate,
                ("Issuing", "True", "DoesNotExist", waiting),
                ("Ready", "False", "DoesNotExist", "Issuing certificate as Secret does not exist"),
            )
            return
        if self._store.find("v1", "Secret", spec["secretName"], namespace) is None:
            authority = new_authority(common_name="rehearsal")
            pair = issue(authority, common_name=spec.get("commonName", ""), dns=spec.get("dnsNames") or (), server=True)
            data = {"tls.crt": pair.crt, "tls.key": pair.key, "ca.crt": authority.crt}
            encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
            metadata: Obj = {"name": spec["secretName"], "namespace": namespace}
            metadata["annotations"] = {"cert-manager.io/certificate-name": name_of(certificate)}
            secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata}
            self._store.create({**secret, "data": encoded})
        self._report(certificate, ("Ready", "True", "Ready", "Certificate is up to date and has not expired"))

    def _report(self, obj: Obj, *conditions: tuple[str, str, str, str]) -> None:
        """Set the conditions: type, status, reason, message."""
        reported = (obj.get("status") or {}).get("conditions") or []
        for kind, status, reason, message in conditions:
            reported = with_condition(reported, kind, status, reason, message)
        generation = obj["metadata"].get("generation", 1)
        reported = [{**condition, "observedGeneration": generation} for condition in reported]
        self._store.set_status(obj, {**(obj.get("status") or {}), "conditions": reported})


def _wanted(obj: Obj) -> dict[str, list[str]]:
    """The Secrets of an Ingress or Gateway, with the host names that each is for."""
    if obj["kind"] == "Ingress":
        entries = [entry for entry in obj["spec"].get("tls") or [] if "secretName" in entry]
        return {entry["secretName"]: entry.get("hosts") or [] for entry in entries}
    wanted: dict[str, list[str]] = {}
    for listener in obj["spec"].get("listeners") or []:
        for reference in (listener.get("tls") or {}).get("certificateRefs") or []:
            wanted.setdefault(reference["name"], []).append(listener.get("hostname", ""))
    return wanted
