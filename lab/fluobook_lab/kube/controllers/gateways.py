"""Cilium's Gateway controller: it accepts classes and routes, and gives each Gateway a Service with an address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.kube.controllers.services import OPERATOR
from fluobook_lab.kube.objects import SERVICES, is_true, name_of, namespace_of, owner_reference, with_condition

if TYPE_CHECKING:
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

API, GROUP, CONTROLLER = "gateway.networking.k8s.io/v1", "gateway.networking.k8s.io", "io.cilium/gateway-controller"
KINDS = {"gatewayclasses": "GatewayClass", "gateways": "Gateway", "httproutes": "HTTPRoute"}
OWNING = "gateway.networking.k8s.io/gateway-name"


class Gateways:
    """Writes the status of GatewayClasses, Gateways and HTTPRoutes as Cilium does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {(GROUP, plural): self._related for plural in KINDS}
        self.sources |= dict.fromkeys((("", "secrets"), SERVICES, ("apps", "deployments")), self._on_other)

    def _related(self, obj: Obj) -> list[Key]:
        """The object itself; a route, a class and the Gateways concern each other."""
        del obj
        keys = [(plural, key) for plural in KINDS for key, _ in self._store.storage.scan((GROUP, plural))]
        return [(f"{KINDS[plural]}/{key[0]}", key[1]) for plural, key in keys]

    def _on_other(self, obj: Obj) -> list[Key]:
        is_tls, is_operator = obj.get("type") == "kubernetes.io/tls", name_of(obj) == OPERATOR[1]
        is_own = OWNING in (obj["metadata"].get("labels") or {})
        return self._related(obj) if is_tls or is_operator or is_own else []

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        kind, _, namespace = key[0].partition("/")
        operator = self._store.find("apps/v1", "Deployment", OPERATOR[1], OPERATOR[0])
        if not operator or not is_true(operator, "Available") or not self._store.registry.find(API, kind):
            return None
        obj = self._store.find(API, kind, key[1], namespace)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        status = {"GatewayClass": self._class, "Gateway": self._gateway, "HTTPRoute": self._route}[kind](obj)
        if status:
            self._store.set_status(obj, {**(obj.get("status") or {}), **status})
        return None

    def _class(self, gateway_class: Obj) -> Obj:
        if gateway_class["spec"].get("controllerName") != CONTROLLER:
            return {}
        old = (gateway_class.get("status") or {}).get("conditions") or []
        return {"conditions": _conditions(gateway_class, old, Accepted=("True", "Accepted", "Valid GatewayClass"))}

    def _is_ours(self, gateway: Obj) -> bool:
        gateway_class = self._store.find(API, "GatewayClass", gateway["spec"]["gatewayClassName"])
        return gateway_class is not None and gateway_class["spec"].get("controllerName") == CONTROLLER

    def _gateway(self, gateway: Obj) -> Obj:
        """Programmed, with the Service's address; a listener without its certificate has ResolvedRefs False."""
        if not self._is_ours(gateway):
            return {}
        status = gateway.get("status") or {}
        before = {listener["name"]: listener.get("conditions") or [] for listener in status.get("listeners") or []}
        done = {kind: ("True", kind, f"Gateway successfully {kind.lower()}") for kind in ("Accepted", "Programmed")}
        return {
            "conditions": _conditions(gateway, status.get("conditions") or [], **done),
            "addresses": [{"type": "IPAddress", "value": entry["ip"]} for entry in self._addresses(gateway)],
            "listeners": [
                {
                    "name": listener["name"],
                    "attachedRoutes": self._attached(gateway, listener["name"]),
                    "supportedKinds": [{"group": GROUP, "kind": "HTTPRoute"}],
                    "conditions": self._listener_conditions(gateway, listener, before.get(listener["name"], [])),
                }
                for listener in gateway["spec"].get("listeners") or []
            ],
        }

    def _listener_conditions(self, gateway: Obj, listener: Obj, before: list[Obj]) -> list[Obj]:
        references = (listener.get("tls") or {}).get("certificateRefs") or []
        namespace = namespace_of(gateway)
        resolved = all(self._store.find("v1", "Secret", item["name"], namespace) for item in references)
        refs = (
            ("True", "ResolvedRefs", "") if resolved else ("False", "InvalidCertificateRef", "Invalid CertificateRef")
        )
        good = {kind: ("True", kind, "") for kind in ("Programmed", "Accepted")}
        return _conditions(gateway, before, **good, ResolvedRefs=refs)

    def _addresses(self, gateway: Obj) -> list[Obj]:
        """The addresses of the Gateway's Service, which is made if it does not exist."""
        name, namespace = f"cilium-gateway-{name_of(gateway)}", namespace_of(gateway)
        service = self._store.find("v1", "Service", name, namespace)
        if service is None:
            ports = sorted({listener["port"] for listener in gateway["spec"].get("listeners") or []})
            metadata: Obj = {"name": name, "namespace": namespace, "ownerReferences": [owner_reference(gateway)]}
            infrastructure = gateway["spec"].get("infrastructure") or {}
            metadata["labels"] = {**(infrastructure.get("labels") or {}), OWNING: name_of(gateway)}
            metadata["annotations"] = infrastructure.get("annotations") or {}
            spec = {"type": "LoadBalancer", "ports": [{"name": f"port-{port}", "port": port} for port in ports]}
            service = self._store.create({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        return ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []

    def _attached(self, gateway: Obj, listener: str) -> int:
        if self._store.registry.find(API, "HTTPRoute") is None:
            return 0
        references = [(route, ref) for route in self._store.view(API, "HTTPRoute") for ref in _parents(route)]
        return sum(
            _leads_to(route, ref, gateway) and ref.get("sectionName", listener) == listener for route, ref in references
        )

    def _route(self, route: Obj) -> Obj:
        old = {str(entry["parentRef"]): entry for entry in (route.get("status") or {}).get("parents") or []}
        gateways = [gateway for gateway in self._store.view(API, "Gateway") if self._is_ours(gateway)]
        kept = [entry for entry in old.values() if entry["controllerName"] != CONTROLLER]
        own = [ref for ref in _parents(route) if any(_leads_to(route, ref, gateway) for gateway in gateways)]
        good = {
            "Accepted": ("True", "Accepted", "Accepted HTTPRoute"),
            "ResolvedRefs": ("True", "ResolvedRefs", "Service reference is valid"),
        }
        if missing := self._missing(route):
            good["ResolvedRefs"] = ("False", "BackendNotFound", f'services "{missing}" not found')
        return {
            "parents": kept
            + [
                {
                    "parentRef": ref,
                    "controllerName": CONTROLLER,
                    "conditions": _conditions(route, old.get(str(ref), {}).get("conditions") or [], **good),
                }
                for ref in own
            ]
        }

    def _missing(self, route: Obj) -> str:
        """The first Service that the route names and that does not exist."""
        rules = route["spec"].get("rules") or []
        services = [
            ref for rule in rules for ref in rule.get("backendRefs") or [] if ref.get("kind", "Service") == "Service"
        ]
        places = [(ref["name"], ref.get("namespace", namespace_of(route))) for ref in services]
        return next((name for name, place in places if not self._store.find("v1", "Service", name, place)), "")


def _parents(route: Obj) -> list[Obj]:
    return list(route["spec"].get("parentRefs") or [])


def _leads_to(route: Obj, reference: Obj, gateway: Obj) -> bool:
    place = (reference.get("namespace", namespace_of(route)), reference["name"])
    return reference.get("kind", "Gateway") == "Gateway" and place == (namespace_of(gateway), name_of(gateway))


def _conditions(obj: Obj, conditions: list[Obj], **changes: tuple[str, str, str]) -> list[Any]:
    """The conditions with changes, all for the object's generation."""
    for kind, (status, reason, message) in changes.items():
        conditions = with_condition(conditions, kind, status, reason, message)
    return [{**condition, "observedGeneration": obj["metadata"].get("generation", 1)} for condition in conditions]
