"""What API servers call in the cluster, over their own path: admission webhooks, which admit all, and metrics-server.

No program runs in the lab's pods, so a Service that a webhook or an APIService names leads to a server of the lab as
soon as one of its pods is ready, and to nothing before: the API then fails closed, as on a site. The certificates are
of an authority of the lab, which stands in webhooks' `caBundle` like that of cert-manager's cainjector or of the
operators themselves.
"""

from __future__ import annotations

import base64
import ssl
from functools import cache
from typing import TYPE_CHECKING

from aiohttp import web

from fluobook.machine import pki
from fluobook_lab.http import HttpServer, issue_for
from fluobook_lab.kube import metrics
from fluobook_lab.kube.errors import ApiError
from fluobook_lab.kube.objects import name_of, namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

API = "admissionregistration.k8s.io/v1"
KINDS = {
    "MutatingWebhookConfiguration": ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    "ValidatingWebhookConfiguration": ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    "APIService": metrics.API_SERVICES,
}


class Webhooks:
    """Serves the Services that webhook configurations and APIServices name.

    Args:
        store: the cluster.
        clock: the lab's clock.
        ports: ports of this machine by the `host:port` that API servers dial; this adds its own.
    """

    def __init__(self, store: Store, clock: Clock, ports: dict[str, int]) -> None:
        self._store, self._ports = store, ports
        self._authority = pki.new_authority(common_name="webhooks of the lab")
        app = web.Application(client_max_size=16 << 20)
        app.router.add_post("/{path:.*}", _admit)
        app.router.add_get("/{path:.*}", self._measure)
        self._server = HttpServer(app, clock)
        self.sources: Sources = {resource: lambda obj: [_key(obj)] for resource in KINDS.values()}
        self.sources[("", "pods")] = self._of_pod

    async def start(self) -> None:
        """Listen."""
        metrics.serve(self._store, available=True)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issued = cache(self._context)

        def choose(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = issued(name or "")

        context.sni_callback = choose
        await self._server.start(ssl_context=context)

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop()

    def _context(self, name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        pki.load_identity(context, issue_for(self._authority, [name], common_name=name))
        return context

    async def _measure(self, request: web.Request) -> web.StreamResponse:
        """What metrics-server answers; who may ask has been decided by the API server."""
        try:
            return web.json_response(metrics.served(self._store, request.path, request.query))
        except ApiError as error:
            return web.json_response(error.status(), status=error.code)

    def _of_pod(self, pod: Obj) -> list[Key]:
        namespace = namespace_of(pod)
        return [
            _key(config)
            for resource in KINDS.values()
            for _, config in self._store.storage.scan(resource)
            if any(service["namespace"] == namespace for service in _services(config))
        ]

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        config = self._store.storage.get(KINDS[key[0]], ("", key[1]))
        if config is None:
            return None
        for service in _services(config):
            live = self._store.find("v1", "Service", service["name"], service["namespace"])
            address = f"{live['spec'].get('clusterIP')}:{service.get('port', 443)}" if live else ""
            if metrics.is_ready(self._store, service):
                self._ports[address] = self._server.port
            else:
                self._ports.pop(address, None)
        bundle = base64.b64encode(self._authority.crt.encode()).decode()
        hooks = config.get("webhooks") or []
        trusting = [{**hook, "clientConfig": _trusting(hook["clientConfig"], bundle)} for hook in hooks]
        if trusting != hooks:
            self._store.patch(API, key[0], key[1], body={"webhooks": trusting})
        return None


def _key(config: Obj) -> Key:
    return (config["kind"], name_of(config))


def _services(config: Obj) -> Iterator[Obj]:
    if service := (config.get("spec") or {}).get("service"):
        yield service
    for hook in config.get("webhooks") or []:
        if service := hook["clientConfig"].get("service"):
            yield service


def _trusting(client: Obj, bundle: str) -> Obj:
    return {**client, "caBundle": bundle} if client.get("service") else client


async def _admit(request: web.Request) -> web.Response:
    """Admit what the request's AdmissionReview is about."""
    review = await request.json()
    response = {"uid": review["request"]["uid"], "allowed": True}
    return web.json_response({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response})
