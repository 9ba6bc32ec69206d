"""What is offered to the LAN: Services, and the values and specs that make Services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.gitops.knowledge import chart_of
from fluobook.gitops.reach import expected
from fluobook.kubernetes.policies import TCP, WORLD, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document, Key
    from fluobook.gitops.look import Finding, Look
    from fluobook.gitops.reach.expected import Expected

_OUTSIDE = ("LoadBalancer", "NodePort")


def only_what_is_meant_for_it_faces_the_world(look: Look) -> Iterator[Finding]:
    """A LoadBalancer has only ports that reachability.yaml opens to the world; nothing else asks to face the LAN."""
    table = expected.read(look.top / expected.NAME)
    for _, document in look.deployed:
        if document.kind == "Service" and not document.group:
            yield from _service(look, table, document)
        else:
            yield from _inner(look, document, document.data.get("spec"), ("spec",))
    for one in look.tree.applications:
        meant = {(*path.split("."), "type") for path in chart_of(one).exposes}
        for path in _types(one.values):
            if path not in meant:
                where = ("spec", "source", "helm", "valuesObject", *path)
                yield _finding(look, one.document, where, f"{one.name}: {'.'.join(map(str, path))} faces the LAN")


def _inner(look: Look, document: Document, spec: Any, path: tuple[Key, ...]) -> Iterator[Finding]:
    for found in _types(spec):
        message = (
            f"{document.kind} {document.name}: {'.'.join(map(str, found))} offers every port of the Service to the LAN"
        )
        yield _finding(look, document, (*path, *found), message)


def _finding(look: Look, document: Document, path: tuple[Key, ...], message: str) -> Finding:
    remedy = "keep it ClusterIP, and give what the LAN needs a Service of its own"
    return look.at(document, *path).finding("exposure", message, remedy)


def _service(look: Look, table: Expected, service: Document) -> Iterator[Finding]:
    spec = service.data.get("spec") or {}
    if spec.get("type") == "NodePort":
        yield _finding(look, service, ("spec", "type"), f"Service {service.name} opens a port of every node")
    if spec.get("type") != "LoadBalancer":
        return
    pods = [pod for pod in table.pods.values() if pod.namespace == service.namespace and _selects(spec, pod)]
    if not pods:
        yield look.at(service, "spec", "selector").finding(
            "exposure",
            f"Service {service.name} selects no pod that {expected.NAME} knows",
            f"correct its selector, or add the pod to {expected.NAME}",
        )
    for index, port in enumerate(spec.get("ports") or ()):
        target = (port.get("targetPort", port.get("port")), port.get("protocol", TCP))
        if closed := [pod.name for pod in pods if not table.row(WORLD, pod, target)[0]]:
            yield look.at(service, "spec", "ports", index).finding(
                "exposure",
                f"Service {service.name} offers {closed[0]}:{target[0]} to the LAN, and no row expects the world there",
                f"take the port out, or add a row to {expected.NAME}",
            )


def _selects(spec: dict[str, Any], pod: Endpoint) -> bool:
    selector = spec.get("selector") or {}
    return bool(selector) and all(pod.labels.get(key) == value for key, value in selector.items())


def _types(value: Any, path: tuple[Key, ...] = ()) -> Iterator[tuple[Key, ...]]:
    """The paths of every `type` that makes a Service face the LAN."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "type" and item in _OUTSIDE:
                yield (*path, key)
            yield from _types(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _types(item, (*path, index))
