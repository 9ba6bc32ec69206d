"""Subresources and reviews: scale, logs, eviction, binding, tokens, port-forward, access reviews."""

from __future__ import annotations

import asyncio
import datetime as dt
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from fluobook.kubernetes.quantities import disruptions_allowed
from fluobook.kubernetes.selectors import matches
from fluobook_lab.kube.access import TOKEN_SECONDS, Question, User, allowed
from fluobook_lab.kube.errors import ApiError, bad_request, no_such_path
from fluobook_lab.kube.lifecycle import listed
from fluobook_lab.kube.objects import is_true, labels_of, namespace_of, timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluobook_lab.kube.access import Authenticator, Write
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.storage import Key
    from fluobook_lab.kube.store import Store

BUDGETS, PODS = ("policy", "poddisruptionbudgets"), ("", "pods")


def scale_of(obj: Obj, *, custom: bool = False) -> Obj:
    """The `Scale` of a workload.

    Raises:
        ApiError: 500, a custom resource does not say how many it wants.
    """
    if custom and "replicas" not in (obj.get("spec") or {}):
        why = 'the spec replicas field ".spec.replicas" does not exist'
        raise ApiError(500, "InternalError", f"Internal error occurred: {why}", {"causes": [{"message": why}]})
    metadata = {
        key: obj["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    status = {"replicas": (obj.get("status") or {}).get("replicas", 0)} | ({"selector": selector} if selector else {})
    replicas = obj["spec"].get("replicas", 1)
    spec = {"replicas": replicas} if replicas else {}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def scaled(store: Store, resource: Resource, key: Key, scale: Obj, write: Write) -> Obj:
    """Set a workload's replicas.

    Raises:
        ApiError: 404, 409.
    """
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        problem = f"Invalid value: {replicas}: must be greater than or equal to 0"
        cause = {"reason": "FieldValueInvalid", "message": problem, "field": "spec.replicas"}
        details = {"name": key[1], "group": "autoscaling", "kind": "Scale", "causes": [cause]}
        raise ApiError(422, "Invalid", f'Scale.autoscaling "{key[1]}" is invalid: spec.replicas: {problem}', details)
    body: Obj = {"spec": {"replicas": replicas}}
    if version := (scale.get("metadata") or {}).get("resourceVersion"):
        body["metadata"] = {"resourceVersion": version}
    changed = store.change(resource, key, body, "application/merge-patch+json", replace(write, through="scale"))
    return scale_of(changed, custom=resource.custom)


def log_text(pod: Obj, container: str) -> str:
    """What a container "logged": that it runs, and since when.

    Raises:
        ApiError: 400, it has not started; 404, it has no such container.
    """
    names = [c["name"] for c in pod["spec"]["containers"]]
    chosen = container or names[0]
    if chosen not in names:
        raise ApiError(400, "BadRequest", f"container {chosen} is not valid for pod {pod['metadata']['name']}")
    if (pod.get("status") or {}).get("phase") not in ("Running", "Succeeded", "Failed"):
        waiting = f'container "{chosen}" in pod "{pod["metadata"]["name"]}" is waiting to start: ContainerCreating'
        raise ApiError(400, "BadRequest", waiting)
    return f"{pod['status'].get('startTime') or timestamp()} {chosen} started (rehearsal: nothing really runs here)\n"


def evicted(store: Store, resource: Resource, key: Key, eviction: Obj, write: Write) -> Obj:
    """Delete a pod on behalf of a drain, if its disruption budget allows it.

    Raises:
        ApiError: 404; 429, the budget does not allow it now; 500, the pod has two budgets.
    """
    pod = store.read(resource, key)
    budgets = [
        budget
        for _, budget in store.storage.scan(BUDGETS, key[0])
        if budget["spec"].get("selector") and matches(budget["spec"]["selector"], labels_of(pod))
    ]
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if len(budgets) > 1:
        text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise ApiError(500, "InternalError", text)
    if budgets and not ended and _disruptions_allowed(store, budgets[0]) <= 0:
        text = "Cannot evict pod as it would violate the pod's disruption budget."
        raise ApiError(429, "TooManyRequests", text)
    store.remove(resource, key, eviction.get("deleteOptions") or {}, write)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _disruptions_allowed(store: Store, budget: Obj) -> int:
    """How many of the pods of a budget may go now."""
    spec = budget["spec"]
    pods = [p for _, p in store.storage.scan(PODS, namespace_of(budget)) if matches(spec["selector"], labels_of(p))]
    healthy = sum(is_true(pod, "Ready") and not pod["metadata"].get("deletionTimestamp") for pod in pods)
    return disruptions_allowed(spec, len(pods), healthy)


def reviewed(store: Store, resource: Resource, review: Obj, user: User) -> Obj:
    """The review with its answer.

    Raises:
        ApiError: 404, no such review.
    """
    if resource.plural in ("selfsubjectaccessreviews", "subjectaccessreviews", "localsubjectaccessreviews"):
        return {**review, "metadata": {}, "status": {"allowed": _is_allowed(store, review, user)}}
    if resource.plural == "selfsubjectreviews":
        return {
            **review,
            "metadata": {},
            "status": {"userInfo": {"username": user.name, "groups": listed(user.groups)}},
        }
    if resource.plural == "selfsubjectrulesreviews":
        rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}] if user.is_admin else []
        status = {"resourceRules": rules, "nonResourceRules": [], "incomplete": not user.is_admin}
        return {**review, "metadata": {}, "status": status}
    raise no_such_path()


def _is_allowed(store: Store, review: Obj, user: User) -> bool:
    spec = review.get("spec") or {}
    if "user" in spec:
        user = User(spec["user"], frozenset(spec.get("groups") or ()))
    asked = spec.get("resourceAttributes") or {}
    resource, sub = asked.get("resource", ""), asked.get("subresource", "")
    question = Question(
        verb=asked.get("verb", ""),
        group=asked.get("group", ""),
        resource=f"{resource}/{sub}" if sub else resource,
        name=asked.get("name", ""),
        namespace=asked.get("namespace", ""),
        path=(spec.get("nonResourceAttributes") or {}).get("path", ""),
    )
    return allowed(store, user, question)


def token_request(authenticator: Authenticator, key: tuple[str, str], request: Obj) -> Obj:
    """The TokenRequest with a token for the service account of that namespace and name."""
    seconds = (request.get("spec") or {}).get("expirationSeconds") or TOKEN_SECONDS
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    token = authenticator.service_account_token(*key, seconds)
    return {**request, "status": {"token": token, "expirationTimestamp": timestamp(until)}}


PROTOCOL = "v4.channel.k8s.io"
CHUNK = 1 << 16


@dataclass(frozen=True)
class Backend:
    """A server of the lab that serves a port of some pods.

    Args:
        namespace: the pods'.
        labels: which pods have.
        port: the container port.
        address: where the server listens.
    """

    namespace: str
    labels: dict[str, str]
    port: int
    address: tuple[str, int]

    def serves(self, pod: Obj, port: int) -> bool:
        """Whether it is that pod's port."""
        fits = self.labels.items() <= labels_of(pod).items()
        return fits and (namespace_of(pod), port) == (self.namespace, self.port)


async def forward(request: web.Request, pod: Obj, backends: Sequence[Backend]) -> web.WebSocketResponse:
    """Carry one port until either side closes.

    Raises:
        ApiError: 400, the request is no such websocket, or names no port.
    """
    port = int(request.query.get("ports") or 0)
    socket = web.WebSocketResponse(protocols=(PROTOCOL,), autoping=True)
    if not port or not socket.can_prepare(request):
        raise bad_request("Upgrade request required")
    await socket.prepare(request)
    head = port.to_bytes(2, "little")
    for channel in (b"\x00", b"\x01"):
        await socket.send_bytes(channel + head)
    backend = next((candidate for candidate in backends if candidate.serves(pod, port)), None)
    if backend is None:
        await socket.send_bytes(b"\x01" + f"error forwarding port {port}: connection refused".encode())
    else:
        await _carry(socket, backend)
    await socket.close()
    return socket


async def _carry(socket: web.WebSocketResponse, backend: Backend) -> None:
    reader, writer = await asyncio.open_connection(*backend.address)

    async def back() -> None:
        while data := await reader.read(CHUNK):
            await socket.send_bytes(b"\x00" + data)
        await socket.close()

    carrying = asyncio.create_task(back())
    try:
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data[:1] == b"\x00":
                writer.write(message.data[1:])
                await writer.drain()
    finally:
        carrying.cancel()
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await carrying
