"""From an HTTP request to the store and back: one table of what is served where."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fluobook_lab.kube import discovery, openapi, patches, reviews, subresources
from fluobook_lab.kube.answers import Form, encoded, json_answer
from fluobook_lab.kube.authorization import Question, allowed, refusal
from fluobook_lab.kube.errors import (
    no_such_group,
    no_such_path,
    not_allowed,
    unreachable_service,
)
from fluobook_lab.kube.forwarding import Backend, forward
from fluobook_lab.kube.lists import page, selector
from fluobook_lab.kube.requests import (
    WRITABLE,
    Body,
    Target,
    check_method,
    check_reached,
    delete_options,
    parse_path,
    read_body,
    version_of,
    wants_watch,
    write_of,
)
from fluobook_lab.kube.streaming import Stream

if TYPE_CHECKING:
    from fluobook_lab.kube.authentication import Authenticator
    from fluobook_lab.kube.identity import User, Write
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.store import Store

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
        self._version = version
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
            return json_answer(_version_info(self._version))
        if (told := self._told(path, request)) is not None:
            return told
        target = parse_path(path)
        if target is None:
            question = Question(request.method.lower(), path=path)
            if not user.is_admin and path not in _OPEN:
                raise refusal(user, question)
            raise no_such_group()
        return await self._resource(request, user, target)

    def _told(self, path: str, request: web.Request) -> web.Response | None:
        """Discovery and OpenAPI."""
        registry = self._store.registry
        if path in ("/api", "/apis") and "as=APIGroupDiscoveryList" in request.headers.get("Accept", ""):
            body = encoded(discovery.aggregated(registry, core=path == "/api"))
            return web.Response(body=body, headers={"Content-Type": discovery.AGGREGATED})
        match path.strip("/").split("/"):
            case ["api"]:
                told = discovery.core_versions(request.host)
            case ["apis"]:
                told = discovery.group_list(registry)
            case ["openapi", "v3"]:
                told = openapi.index(registry)
            case ["openapi", "v3", *rest]:
                told = openapi.document(registry, "/".join(rest), self._version)
            case ["api", version]:
                told = discovery.resource_list(registry, "", version)
            case ["apis", group]:
                told = discovery.group(registry, group)
            case ["apis", group, version]:
                told = discovery.resource_list(registry, group, version)
            case _:
                return None
        return json_answer(told)

    async def _resource(self, request: web.Request, user: User, target: Target) -> web.StreamResponse:
        discovery.check_served(self._store.registry, target.group, target.version)
        resource = self._store.registry.by_path(target.group, target.version, target.plural)
        watch = target.watched or wants_watch(request.query)
        verb = target.verb(request.method, watch=watch)
        namespace = target.namespace if resource.namespaced else ""
        question = Question(verb, target.group, target.resource, target.name, namespace)
        if not allowed(self._store, user, question):
            raise refusal(user, question)
        check_method(resource, target, request.method)
        form = Form.of(
            request.headers.get("Accept", ""), request.query.get("includeObject", ""), listed=verb in ("list", "watch")
        )
        if verb == "watch":
            query = target.narrowed(request.query)
            return await Stream(self._store.storage, resource, form, query, namespace).serve(request)
        if verb == "list":
            objs, metadata = page(self._store.storage, resource, namespace, request.query)
            return json_answer(form.many(resource, objs, metadata))
        if verb == "get":
            check_reached(version_of(request.query.get("resourceVersion", "")), self._store.storage.revision)
        if verb == "get" and target.subresource in ("", "status", "approval"):
            return json_answer(form.one(resource, self._store.read(resource, (namespace, target.name))))
        if target.subresource == "portforward":
            return await forward(request, self._store.read(resource, (namespace, target.name)), self.backends)
        answer = self._act(request, user, resource, target, await read_body(request))
        return _formed(answer, form, resource)

    def _act(self, request: web.Request, user: User, resource: Resource, target: Target, told: Body) -> web.Response:
        namespace = target.namespace if resource.namespaced else ""
        key = (namespace, target.name)
        write, body = write_of(request, user, target, told), told.value
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
            done = self._patch(request, resource, key, body, write)
            status = 200 if existed else 201
        else:
            raise no_such_path()
        return json_answer(done, status, write.warnings)

    def _patch(self, request: web.Request, resource: Resource, key: tuple[str, str], body: Any, write: Write) -> Obj:
        if request.content_type != patches.APPLY:
            return self._store.change(resource, key, body, request.content_type, write)
        return self._store.merge_in(resource, key, body, write)

    def _on_collection(
        self, request: web.Request, resource: Resource, namespace: str, body: Any, write: Write
    ) -> web.Response:
        if request.method == "POST":
            if not resource.storable:
                return json_answer(reviews.reviewed(self._store, resource, body, write.user), 201)
            return json_answer(self._store.insert(resource, namespace, body, write), 201, write.warnings)
        if request.method != "DELETE":
            raise no_such_path()
        fits, gone = selector(resource, namespace, request.query), []
        for key, obj in self._store.storage.scan(resource.store_key, namespace):
            if fits(obj):
                self._store.remove(resource, key, delete_options(request, body), write)
                gone.append(obj)
        return json_answer(Form().many(resource, gone, {"resourceVersion": str(self._store.storage.revision)}))

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
            case ("POST", "binding"):
                done = subresources.bound(self._store, resource, key, body, write)
            case ("POST", "token"):
                done = reviews.token_request(self._authenticator, key, body)
            case _:
                raise no_such_path()
        return json_answer(done, 201)

    def _node_proxy(self, node: Obj, sub: str) -> web.Response:
        """A kubelet's health; it needs a serving certificate, as the API server verifies it."""
        if not reviews.has_serving_certificate(self._store, node["metadata"]["name"]):
            raise unreachable_service("remote error: tls: internal error")
        return web.Response(text="ok" if sub == "proxy/healthz" else "")


def _formed(answer: web.Response, form: Form, resource: Resource) -> web.Response:
    """The answer to a write in the form that was asked for; what is no object of the resource stays as it is."""
    if form.kind and answer.status < HTTPStatus.BAD_REQUEST:
        told = json.loads(bytes(answer.body))  # type: ignore[arg-type]
        if told.get("kind") == resource.kind:
            answer.body = encoded(form.one(resource, told))
        elif told.get("kind") == f"{resource.kind}List":
            answer.body = encoded(form.many(resource, told["items"], told["metadata"]))
    return answer


def _version_info(version: str) -> Obj:
    major, minor = version.removeprefix("v").split(".")[:2]
    build = {"gitCommit": "0" * 40, "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z"}
    how = {"goVersion": "go1.25.9", "compiler": "gc", "platform": "linux/amd64"}
    return {"major": major, "minor": minor, "gitVersion": version, **build, **how}
