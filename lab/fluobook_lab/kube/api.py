"""The API server: its listeners (one for each control plane node), and one table of what is served where."""

from __future__ import annotations

import json
import logging
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fluobook_lab.http import HttpServer, Request
from fluobook_lab.kube import discovery, metrics, subresources
from fluobook_lab.kube.access import ADMIN, Authenticator, Question, User, allowed, refusal
from fluobook_lab.kube.controllers.certificates import has_serving_certificate
from fluobook_lab.kube.errors import (
    ApiError,
    no_such_group,
    no_such_path,
    not_allowed,
    unauthorized,
    unreachable_service,
)
from fluobook_lab.kube.lists import Stream, page
from fluobook_lab.kube.requests import (
    WRITABLE,
    Target,
    check_target,
    delete_options,
    parse_path,
    read_body,
    wants_watch,
    write_of,
)
from fluobook_lab.kube.responses import Form, encoded, json_answer
from fluobook_lab.kube.selectors import selector
from fluobook_lab.kube.store import SERVICE_CIDR, Store
from fluobook_lab.kube.subresources import Backend, forward

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.kube.access import Write
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.subresources import Backend


_OPEN = frozenset({"/", "/api", "/apis", "/version", "/openapi/v2"})
"""Paths beside the resources that everybody who is known may read."""


class Routes:
    """Serves the paths of the API.

    Args:
        store: the cluster's objects.
        authenticator: who makes tokens for service accounts.
        version: gitVersion, such as "v1.35.2".
    """

    def __init__(self, store: Store, authenticator: Authenticator, version: str) -> None:
        self._store = store
        self._authenticator = authenticator
        self.version = version
        self.backends: list[Backend] = []

    async def answer(self, request: web.Request, user: User) -> web.StreamResponse:
        """The answer to an authenticated request.

        Raises:
            ApiError: it is refused.
        """
        path = request.path.rstrip("/") or "/"
        if path in ("/readyz", "/livez", "/healthz"):
            return web.Response(text="ok")
        if path == "/version" and request.method != "GET":
            raise not_allowed()
        if path == "/version":
            return json_answer(_version_info(self.version))
        if (response := self._discovery(path, request)) is not None:
            return response
        target = parse_path(path)
        if target is None:
            question = Question(request.method.lower(), path=path)
            if not user.is_admin and path not in _OPEN:
                raise refusal(user, question)
            raise no_such_group()
        return await self._resource(request, user, target)

    def _discovery(self, path: str, request: web.Request) -> web.Response | None:
        """Discovery and OpenAPI."""
        registry = self._store.registry
        if path in ("/api", "/apis") and "as=APIGroupDiscoveryList" in request.headers.get("Accept", ""):
            body = encoded(discovery.aggregated(registry, core=path == "/api"))
            return web.Response(body=body, headers={"Content-Type": discovery.AGGREGATED})
        match path.strip("/").split("/"):
            case ["api"]:
                document = discovery.core_versions(request.host)
            case ["apis"]:
                document = discovery.group_list(registry)
            case ["openapi", "v3"]:
                document = discovery.index(registry)
            case ["openapi", "v3", *rest]:
                document = discovery.document(registry, "/".join(rest), self.version)
            case ["api", version]:
                document = discovery.resource_list(registry, "", version)
            case ["apis", group]:
                document = discovery.group(registry, group)
            case ["apis", group, version]:
                document = discovery.resource_list(registry, group, version)
            case _:
                return None
        return json_answer(document)

    async def _resource(self, request: web.Request, user: User, target: Target) -> web.StreamResponse:
        discovery.check_served(self._store.registry, target.group, target.version)
        resource = self._store.registry.by_path(target.group, target.version, target.plural)
        watch = target.watched or wants_watch(request.query)
        verb = target.verb(request.method, watch=watch)
        namespace = target.namespace if resource.namespaced else ""
        question = Question(verb, target.group, target.resource, target.name, namespace)
        if not allowed(self._store, user, question):
            raise refusal(user, question)
        check_target(resource, target, verb)
        if resource.group == metrics.GROUP:
            return json_answer(metrics.answer(self._store, resource, target.namespace, target.name, request.query))
        form = Form.of(request.headers.get("Accept", ""), request.query.get("includeObject", ""))
        if verb == "watch":
            query = target.narrowed(request.query)
            return await Stream(self._store.storage, resource, form, query, namespace).serve(request)
        if verb == "list":
            objs, metadata = page(self._store.storage, resource, namespace, request.query)
            return json_answer(form.listing(resource, objs, metadata))
        if verb == "get" and target.subresource in ("", "status", "approval"):
            return json_answer(form.single(resource, self._store.read(resource, (namespace, target.name))))
        if target.subresource == "portforward":
            return await forward(request, self._store.read(resource, (namespace, target.name)), self.backends)
        answer = self._act(request, user, resource, target, await read_body(request))
        return _formed(answer, form, resource)

    def _act(self, request: web.Request, user: User, resource: Resource, target: Target, body: Any) -> web.Response:
        namespace = target.namespace if resource.namespaced else ""
        key = (namespace, target.name)
        write = write_of(request, user, target, body)
        if not target.name:
            return self._on_collection(request, resource, namespace, body, write)
        if target.subresource not in WRITABLE:
            return self._on_subresource(request, resource, target, body, write)
        if request.method == "DELETE":
            status = 200
            done = self._store.remove(resource, key, delete_options(request, body), write)
        elif request.method == "PUT":
            status, done = 200, self._store.replace(resource, key, body, write)
        elif request.method == "PATCH":
            existed = self._store.storage.get(resource.store_key, key) is not None
            done = self._store.change(resource, key, body, request.content_type, write)
            status = 200 if existed else 201
        else:
            raise no_such_path()
        return json_answer(done, status, write.warnings)

    def _on_collection(
        self, request: web.Request, resource: Resource, namespace: str, body: Any, write: Write
    ) -> web.Response:
        if request.method == "POST":
            if not resource.storable:
                return json_answer(subresources.reviewed(self._store, resource, body, write.user), 201)
            return json_answer(self._store.insert(resource, namespace, body, write), 201, write.warnings)
        if request.method != "DELETE":
            raise no_such_path()
        fits, gone = selector(namespace, request.query), []
        for key, obj in self._store.storage.scan(resource.store_key, namespace):
            if fits(obj):
                self._store.remove(resource, key, delete_options(request, body), write)
                gone.append(obj)
        return json_answer(Form().listing(resource, gone, {"resourceVersion": str(self._store.storage.revision)}))

    def _on_subresource(
        self, request: web.Request, resource: Resource, target: Target, body: Any, write: Write
    ) -> web.Response:
        key = (target.namespace if resource.namespaced else "", target.name)
        obj = self._store.read(resource, key)
        if target.subresource.startswith("proxy") and resource.plural == "nodes":
            return self._node_proxy(obj, target.subresource)
        match (request.method, target.subresource):
            case ("GET", "scale"):
                return json_answer(subresources.scale_of(obj, custom=resource.custom))
            case (_, "scale"):
                return json_answer(subresources.scaled(self._store, resource, key, body, write))
            case ("GET", "log"):
                return web.Response(text=subresources.log_text(obj, request.query.get("container", "")))
            case ("POST", "eviction"):
                done = subresources.evicted(self._store, resource, key, body, write)
            case ("POST", "token"):
                done = subresources.token_request(self._authenticator, key, body)
            case _:
                raise no_such_path()
        return json_answer(done, 201)

    def _node_proxy(self, node: Obj, sub: str) -> web.Response:
        """A kubelet's health and one of its metrics; it needs a serving certificate, as the API server verifies it."""
        if not has_serving_certificate(self._store, node["metadata"]["name"]):
            raise unreachable_service("remote error: tls: internal error")
        if sub == "proxy/metrics":
            return web.Response(text="kubelet_certificate_manager_server_ttl_seconds 3.1535e+07\n")
        return web.Response(text="ok" if sub == "proxy/healthz" else "")


def _formed(answer: web.Response, form: Form, resource: Resource) -> web.Response:
    """The answer to a write in the form that was asked for; what is no object of the resource stays as it is."""
    if form.kind and answer.status < HTTPStatus.BAD_REQUEST:
        document = json.loads(bytes(answer.body))  # type: ignore[arg-type]
        if document.get("kind") == resource.kind:
            answer.body = encoded(form.single(resource, document))
        elif document.get("kind") == f"{resource.kind}List":
            answer.body = encoded(form.listing(resource, document["items"], document["metadata"]))
    return answer


def _version_info(version: str) -> Obj:
    major, minor = version.removeprefix("v").split(".")[:2]
    build = {"gitCommit": "0" * 40, "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z"}
    how = {"goVersion": "go1.25.9", "compiler": "gc", "platform": "linux/amd64"}
    return {"major": major, "minor": minor, "gitVersion": version, **build, **how}


VERSION = "v1.35.2"
BODY_LIMIT = 16 << 20
"""Bytes of a request's body; Argo CD's CRDs are over 1 MiB."""
_WITHOUT_ETCD = frozenset({"/livez", "/version"})
"""What an API server answers although etcd does not."""

_log = logging.getLogger(__name__)


class KubeApi:
    """A Kubernetes API server in memory.

    Args:
        clock: the lab's clock; stamps the request log.
        faults: what goes wrong on purpose: "kube.api-500", "kube.api-429", "kube.watch-gone".
        version: gitVersion, such as "v1.35.2".
        seed: makes uids and generated names the same in every run.
        service_cidr: where cluster IPs come from.

    Attributes:
        store: the objects, for the lab's own parts; use it on the event loop only.
        requests: what was asked over HTTP, in order.
        has_quorum: whether etcd has one; without, objects are neither read nor written.
    """

    def __init__(
        self, clock: Clock, faults: Faults, *, version: str = VERSION, seed: int = 0, service_cidr: str = SERVICE_CIDR
    ) -> None:
        self.store = Store(seed, service_cidr)
        self.version = version
        self.requests: list[Request] = []
        self.has_quorum: Callable[[], bool] = lambda: True
        self._clock = clock
        self._faults = faults
        self.authenticator = Authenticator(self.store)
        self._routes = Routes(self.store, self.authenticator, version)
        self._servers: list[HttpServer] = []

    def serve_as(self, version: str) -> None:
        """Answer as another version: while API servers of two versions run, as the older one."""
        self.version = self._routes.version = version

    def publish(self, backend: Backend) -> None:
        """Let port-forwards to some pods reach a server of the lab."""
        self._routes.backends.append(backend)

    async def start(self, sock: socket.socket | int = 0, ssl_context: ssl.SSLContext | None = None) -> HttpServer:
        """Serve on a bound socket or a port; once for each control plane node.

        Args:
            sock: bound, or a port of 127.0.0.1 (0 for a free one).
            ssl_context: the server's, asking for client certificates of the cluster's CA (`ssl.CERT_OPTIONAL`).
                Without one everybody is admin: for tests.

        Returns:
            the listener: its `port`, and what `stop` takes to end it alone.
        """
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_route("*", "/{path:.*}", self._handle)
        server = HttpServer(app, self._clock, read_only=_only_asks, follow_clients=True)
        server.requests = self.requests
        server.inject = partial(self._faults.answer, "kube")
        await server.start(sock, ssl_context)
        self._servers.append(server)
        return server

    async def stop(self, server: HttpServer | None = None) -> None:
        """End one listener, or all of them."""
        ending = [listener for listener in self._servers if server in (None, listener)]
        self._servers = [listener for listener in self._servers if listener not in ending]
        for listener in ending:
            await listener.stop()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answered(request)
        except ApiError as error:
            if not error.reason and error.code == HTTPStatus.NOT_FOUND:
                return web.Response(text=error.message, status=error.code)
            response = json_answer(error.status(), error.code)
            if error.code == HTTPStatus.TOO_MANY_REQUESTS or "retryAfterSeconds" in error.details:
                response.headers["Retry-After"] = "1"
            return response
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001  (a server answers 500, it does not die)
            _log.exception("%s %s failed", request.method, request.path)
            failure = ApiError(500, "InternalError", f"Internal error occurred: {error!r}")
            return json_answer(failure.status(), 500)

    async def _answered(self, request: web.Request) -> web.StreamResponse:
        user = self._user(request)
        if request.path not in _WITHOUT_ETCD and not self.has_quorum():
            raise ApiError(500, "InternalError", "Internal error occurred: etcdserver: request timed out")
        if self._faults.take("kube.api-500"):
            raise ApiError(500, "InternalError", "Internal error occurred: etcdserver: leader changed")
        if self._faults.take("kube.api-429"):
            raise ApiError(
                429, "TooManyRequests", "the server has received too many requests and has asked us to try again later"
            )
        if request.query.get("watch") in ("true", "1") and self._faults.take("kube.watch-gone"):
            for resource in self.store.registry:
                self.store.storage.compact(resource.store_key)
        return await self._routes.answer(request, user)

    def _user(self, request: web.Request) -> User:
        if request.transport is None or request.transport.get_extra_info("sslcontext") is None:
            return ADMIN
        certificate = request.transport.get_extra_info("peercert")
        user = self.authenticator.user(certificate, request.headers.get("Authorization", ""))
        if user is None:
            raise unauthorized()
        other = request.headers.get("Impersonate-User", "")
        if other and not user.is_admin:
            raise refusal(user, Question("impersonate", resource="users", name=other))
        if other:
            return User(other, frozenset({*request.headers.getall("Impersonate-Group", ()), "system:authenticated"}))
        return user


def _only_asks(request: web.Request) -> bool:
    """Dry runs, reviews and tokens change nothing."""
    return "dryRun" in request.query or request.path.endswith(("reviews", "/token"))
