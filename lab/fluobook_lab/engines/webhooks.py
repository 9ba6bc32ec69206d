"""Admission webhooks of charts: they are called over the API server's own path, and admit everything unchanged.

No program runs in the lab's pods, so a Service that a webhook names leads to a server of the lab as soon as one of its
pods is ready, and to nothing before: the API then fails closed, as on a site. The certificates are of an authority of
the lab, which stands in `caBundle` like that of cert-manager's cainjector or of the operators themselves.
"""

from __future__ import annotations

import base64
import ssl
from functools import cache
from typing import TYPE_CHECKING

from aiohttp import web

from fluobook.kubernetes.selectors import matches
from fluobook.machine import pki
from fluobook_lab.http import HttpServer, issue_for
from fluobook_lab.kube.objects import is_true, labels_of, name_of, namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook_lab.clock import Clock
    from fluobook_lab.kube.controllers.loop import Sources
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

API = "admissionregistration.k8s.io/v1"
KINDS = {
    "mutatingwebhookconfigurations": "MutatingWebhookConfiguration",
    "validatingwebhookconfigurations": "ValidatingWebhookConfiguration",
}


class Webhooks:
    """Serves the Services that webhook configurations name.

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
        self._server = HttpServer(app, clock)
        group = API.partition("/")[0]
        self.sources: Sources = {(group, plural): lambda obj: [_key(obj)] for plural in KINDS}
        self.sources[("", "pods")] = self._of_pod

    async def start(self) -> None:
        """Listen."""
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

    def _of_pod(self, pod: Obj) -> list[Key]:
        namespace = namespace_of(pod)
        return [
            _key(config)
            for kind in KINDS.values()
            for config in self._store.view(API, kind)
            if any(service["namespace"] == namespace for service in _services(config))
        ]

    def reconcile(self, key: Key) -> float | None:
        """As in `Controller`."""
        config = self._store.find(API, key[0], key[1])
        if config is None:
            return None
        for service in _services(config):
            live = self._store.find("v1", "Service", service["name"], service["namespace"])
            address = f"{live['spec'].get('clusterIP')}:{service.get('port', 443)}" if live else ""
            if live and self._is_ready(live):
                self._ports[address] = self._server.port
            else:
                self._ports.pop(address, None)
        bundle = base64.b64encode(self._authority.crt.encode()).decode()
        trusting = [{**hook, "clientConfig": _trusting(hook["clientConfig"], bundle)} for hook in config["webhooks"]]
        if trusting != config["webhooks"]:
            self._store.patch(API, key[0], key[1], body={"webhooks": trusting})
        return None

    def _is_ready(self, service: Obj) -> bool:
        selector = {"matchLabels": service["spec"].get("selector") or {}}
        pods = self._store.view("v1", "Pod", namespace_of(service))
        return any(matches(selector, labels_of(pod)) and is_true(pod, "Ready") for pod in pods)


def _key(config: Obj) -> Key:
    return (config["kind"], name_of(config))


def _services(config: Obj) -> Iterator[Obj]:
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
