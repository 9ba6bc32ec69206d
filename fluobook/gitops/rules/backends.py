"""The Services that hosts lead to: somebody makes them, and they have the port that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fluobook.gitops.documents import steps_of
from fluobook.gitops.knowledge import chart_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.documents import Document, Key
    from fluobook.gitops.look import Finding, Look


class Backend(NamedTuple):
    """A Service and its port (a number, a name, None) as an Ingress or an HTTPRoute names them, and where."""

    service: str
    port: Any
    at: tuple[Key, ...]


def routes_lead_somewhere(look: Look) -> Iterator[Finding]:
    """What is behind a host is a Service of the same namespace that somebody makes, with that port."""
    for _, document in look.deployed:
        if document.kind in ("Ingress", "HTTPRoute"):
            ports, makers = _served(look, document.namespace), _makers(look, document)
            for backend in _backends(document):
                yield from _judged(look, document, backend, ports, makers)


def _judged(
    look: Look, document: Document, backend: Backend, ports: dict[str, list[Any]], makers: set[str]
) -> Iterator[Finding]:
    known, where = ports.get(backend.service), look.at(document, *backend.at)
    if known is None and not any(f"-{maker}-" in f"-{backend.service}-" for maker in makers):
        remedy = f"name one of {', '.join(sorted(ports)) or ', '.join(sorted(makers)) or 'none'}"
        yield where.finding("backend", f"there is no Service {backend.service} in {document.namespace}", remedy)
    elif known and isinstance(backend.port, int) and backend.port not in known:
        message = f"Service {backend.service} has no port {backend.port}"
        yield where.finding("backend", message, f"name one of {', '.join(map(str, known))}")


def _served(look: Look, namespace: str) -> dict[str, list[Any]]:
    """The Services of a namespace whose ports are known, from the tree and of the charts, with their port numbers."""
    ports = {
        one.name: [port.get("port") for port in (one.data.get("spec") or {}).get("ports") or ()]
        for _, one in look.deployed
        if one.kind == "Service" and one.namespace == namespace
    }
    for application in look.tree.applications:
        if application.namespace == namespace:
            served = chart_of(application).serves.items()
            ports |= {name.format(release=application.release): list(numbers) for name, numbers in served}
    return ports


def _makers(look: Look, document: Document) -> set[str]:
    """Services are named after what makes them: a release, or an object of the same namespace."""
    here = [one for one in look.tree.applications if one.namespace == document.namespace]
    releases = {str(name) for one in here for name in (one.release, one.values.get("fullnameOverride")) if name}
    return releases | {one.name for _, one in look.deployed if one.namespace == document.namespace and one != document}


def _backends(document: Document) -> Iterator[Backend]:
    for path, key, value in steps_of(document.data.get("spec"), ("spec",)):
        if key == "service" and isinstance(value, dict):
            port = value.get("port")
            number = (port.get("number") or port.get("name")) if isinstance(port, dict) else None
            yield Backend(str(value.get("name")), number, (*path, "name"))
        elif "backendRefs" in path and isinstance(value, dict) and value.get("kind", "Service") == "Service":
            yield Backend(str(value.get("name")), value.get("port"), (*path, "name"))
