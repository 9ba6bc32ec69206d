"""cert-manager with an authority of the lab, and Cilium's Gateway controller: who asks for certificates, who has them.

With the fault `kube.issuer-unreachable`, no ACME server answers: issuers do not register, their certificates stay
pending, and listeners of a Gateway have no certificate.
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
        self.sources[("", "secrets")] = self._on_secret

    def _keys_of(self, resource: Key) -> Any:
        return lambda obj: [(f"{'/'.join(resource)}/{namespace_of(obj)}", name_of(obj))]

    def _all(self, *resources: Key) -> Iterator[Key]:
        for resource in resources:
            for key, _ in self._store.storage.scan(resource):
                yield f"{'/'.join(resource)}/{key[0]}", key[1]

    def _on_deployment(self, deployment: Obj) -> list[Key]:
        return list(self._all(*KINDS)) if is_named(deployment, "cert-manager") else []

    def _on_secret(self, secret: Obj) -> list[Key]:
        is_tls = secret.get("type") == "kubernetes.io/tls"
        return list(self._all(("gateway.networking.k8s.io", "gateways"))) if is_tls else []

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        group, plural, namespace = key[0].split("/")
        version, kind = KINDS[group, plural]
        if self._store.registry.find(version, kind) is None:
            return None
        obj = self._store.find(version, kind, key[1], namespace)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        if kind == "Gateway":
            self._store.set_status(obj, {**(obj.get("status") or {}), **self._gateway_status(obj)})
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
            metadata = {"name": spec["secretName"], "namespace": namespace}
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

    def _gateway_status(self, gateway: Obj) -> Obj:
        """Accepted and programmed; a listener without its certificate has ResolvedRefs False, as Cilium reports it."""
        generation, namespace = gateway["metadata"].get("generation", 1), namespace_of(gateway)
        status = gateway.get("status") or {}
        before = {listener["name"]: listener.get("conditions") or [] for listener in status.get("listeners") or []}
        listeners = []
        for listener in gateway["spec"].get("listeners") or []:
            references = (listener.get("tls") or {}).get("certificateRefs") or []
            resolved = all(self._store.find("v1", "Secret", item["name"], namespace) for item in references)
            conditions = before.get(listener["name"], [])
            for kind, value, reason in (
                ("Programmed", "True", "Programmed"),
                ("Accepted", "True", "Accepted"),
                ("ResolvedRefs", str(resolved), "ResolvedRefs" if resolved else "InvalidCertificateRef"),
            ):
                message = "" if value == "True" else "Invalid CertificateRef"
                conditions = with_condition(conditions, kind, value, reason, message)
            listeners.append(
                {
                    "name": listener["name"],
                    "attachedRoutes": 0,
                    "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
                    "conditions": [{**condition, "observedGeneration": generation} for condition in conditions],
                }
            )
        conditions = status.get("conditions") or []
        for kind in ("Accepted", "Programmed"):
            conditions = with_condition(conditions, kind, "True", kind, f"Gateway successfully {kind.lower()}")
        conditions = [{**condition, "observedGeneration": generation} for condition in conditions]
        return {"conditions": conditions, "listeners": listeners}


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
