"""Plays what ingress-nginx tells: each Ingress of its class gets the address of its LoadBalancer Service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook_lab.kube.controllers.loop import own_key
from fluobook_lab.kube.objects import annotations_of

if TYPE_CHECKING:
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

API = "networking.k8s.io/v1"
INGRESSES = ("networking.k8s.io", "ingresses")
CLASSES = ("networking.k8s.io", "ingressclasses")
SERVICES = ("", "services")
CONTROLLER = "k8s.io/ingress-nginx"
DEFAULT = "ingressclass.kubernetes.io/is-default-class"
OURS = {"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"}


class Ingresses:
    """Publishes the controller's address in the status of every Ingress that is its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sources: Sources = {INGRESSES: own_key, CLASSES: self._all, SERVICES: self._of_service}

    def _all(self, obj: Obj) -> list[Key]:
        del obj
        return [key for key, _ in self._store.storage.scan(INGRESSES)]

    def _of_service(self, service: Obj) -> list[Key]:
        return self._all(service) if _is_the_controllers(service) else []

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        ingress = self._store.find(API, "Ingress", key[1], key[0])
        if ingress is None or not self._is_ours(ingress):
            return None
        addresses = [{"ip": entry["ip"]} for entry in self._addresses()]
        self._store.set_status(ingress, {"loadBalancer": {"ingress": addresses} if addresses else {}})
        return None

    def _is_ours(self, ingress: Obj) -> bool:
        name = ingress["spec"].get("ingressClassName")
        classes = [one for one in self._store.list(API, "IngressClass") if one["spec"].get("controller") == CONTROLLER]
        return any(one["metadata"]["name"] == name if name else _is_default(one) for one in classes)

    def _addresses(self) -> list[Obj]:
        services = (service for _, service in self._store.storage.scan(SERVICES) if _is_the_controllers(service))
        return next(
            (
                found
                for one in services
                if (found := ((one.get("status") or {}).get("loadBalancer") or {}).get("ingress"))
            ),
            [],
        )


def _is_the_controllers(service: Obj) -> bool:
    spec = service["spec"]
    return spec.get("type") == "LoadBalancer" and OURS.items() <= (spec.get("selector") or {}).items()


def _is_default(ingress_class: Obj) -> bool:
    return annotations_of(ingress_class).get(DEFAULT) == "true"
