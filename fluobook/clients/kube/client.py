"""The Kubernetes API as the stages use it: plain objects in, plain objects out, errors of ours.

Blocking, and safe for threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook.clients.kube.connection import Endpoint, endpoint
from fluobook.clients.kube.forward import Forward
from fluobook.clients.kube.informer import Informer
from fluobook.clients.kube.transport import Transport
from fluobook.errors import Conflict, NotFound, OutsideError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fluobook.clients.kube.discovery import Kind
    from fluobook.clients.kube.watching import Change

Obj = dict[str, Any]
"""A Kubernetes object as JSON."""
Objs = list[Obj]

KUBELET_LOST = "error trying to reach service"
MANAGER = "fluobook"
"""Our field manager in server-side apply."""
PAGE = 500
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


class Kube:
    """One Kubernetes cluster, as one user.

    Args:
        at: where it is and who we are; see `from_kubeconfig`.
    """

    def __init__(self, at: Endpoint) -> None:
        self.at = at
        self.transport = Transport(at)

    @classmethod
    def from_kubeconfig(cls, kubeconfig: Mapping[str, Any], *, address: tuple[str, int] | None = None) -> Kube:
        """The cluster and user of a kubeconfig's current context.

        Args:
            kubeconfig: its content; certificates inside it, `tls-server-name` heeded.
            address: (host, port) to connect to instead of `server`, see `platform.route`.

        Raises:
            FluobookError: it is not a usable kubeconfig.
        """
        return cls(endpoint(kubeconfig, address=address))

    def __repr__(self) -> str:
        return f"Kube({self.at.name})"

    def close(self) -> None:
        """Close idle connections."""
        self.transport.close()

    # ---- the server itself -------------------------------------------------------------------------------------

    def version(self) -> str:
        """The server's version, such as "v1.35.2".

        Raises:
            OutsideError: no answer, or a refusal.
        """
        return self.transport.call("GET", "/version", what="ask for the version")["gitVersion"]

    def ready(self) -> bool:
        """Whether the API server answers that it is ready; False as well if it does not answer at all.

        Raises:
            AccessDenied: it answers, and does not know us.
        """
        try:
            self.transport.raw("GET", "/readyz", what="ask whether it is ready")
        except OutsideError as error:
            if isinstance(error, Unreachable) or error.code.startswith(("5", "InternalError")):
                return False
            raise
        return True

    def kubelet_answers(self, node: str) -> bool:
        """Whether the API server reaches a node's kubelet and accepts its serving certificate.

        Raises:
            Unreachable: the API server itself does not answer.
        """
        try:
            self.transport.raw("GET", f"/api/v1/nodes/{node}/proxy/healthz", what=f"ask the kubelet of {node}")
        except Unreachable as error:
            # The API server answers 503 for itself and for a kubelet that it does not reach; only the words differ.
            if KUBELET_LOST not in error.message:
                raise
            return False
        except OutsideError:
            return False
        return True

    # ---- objects -----------------------------------------------------------------------------------------------

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Obj:
        """One object.

        Raises:
            NotFound: no such object or kind.
            OutsideError: no answer, or a refusal.
        """
        path = self.transport.kind(api_version, kind).path(name, namespace)
        return self.transport.call("GET", path, what=f"read {_title(kind, name, namespace)}")

    def find(self, api_version: str, kind: str, name: str, namespace: str = "") -> Obj | None:
        """One object, None if it or its kind does not exist.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        try:
            return self.get(api_version, kind, name, namespace)
        except NotFound:
            return None

    def list(self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> Objs:
        """All objects of a kind (of one namespace, if it is named) that fit the selectors.

        Raises:
            NotFound: no such kind.
            OutsideError: no answer, or a refusal.
        """
        return self.snapshot(api_version, kind, namespace, labels=labels, fields=fields)[0]

    def snapshot(
        self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> tuple[Objs, str]:
        """As `list`, with the resourceVersion to watch from."""
        found = self.transport.kind(api_version, kind)
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        items: Objs = []
        while True:
            answer = self.transport.call("GET", found.path(namespace=namespace), query, what=f"list {found.plural}")
            # Items of a list have no kind of their own.
            items += [{"apiVersion": api_version, "kind": kind, **item} for item in answer["items"]]
            query["continue"] = answer["metadata"].get("continue", "")
            if not query["continue"]:
                return items, answer["metadata"].get("resourceVersion", "")

    def apply(self, obj: Obj, *, force: bool = False, dry_run: bool = False, manager: str = MANAGER) -> Obj:
        """Server-side apply: what the object says is as it says afterwards; what it does not say stays.

        Args:
            obj: apiVersion, kind, metadata.name and the fields we want to own.
            force: take fields that another manager owns with another value.
            dry_run: answer as if, and change nothing.
            manager: the field manager.

        Raises:
            Conflict: another manager owns fields with other values, and `force` is not set.
            Rejected: the object is invalid.
            OutsideError: no answer, or another refusal.
        """
        found, name, namespace = self._address(obj)
        query = _options(dry_run=dry_run) | {"fieldManager": manager, "force": str(force).lower()}
        what = f"apply {_title(found.kind, name, namespace)}"
        return self.transport.call("PATCH", found.path(name, namespace), query, body=obj, media_type=APPLY, what=what)

    def create(self, obj: Obj, *, dry_run: bool = False) -> Obj:
        """Create an object.

        Raises:
            Conflict: there is one of that name.
            Rejected: it is invalid.
            OutsideError: no answer, or another refusal.
        """
        found, name, namespace = self._address(obj)
        what = f"create {_title(found.kind, name, namespace)}"
        return self.transport.call(
            "POST", found.path(namespace=namespace), _options(dry_run=dry_run), body=obj, what=what
        )

    def replace(self, obj: Obj, *, subresource: str = "") -> Obj:
        """Replace an object; with its resourceVersion only if nobody changed it since.

        Raises:
            Conflict: somebody did.
            OutsideError: no answer, or another refusal.
        """
        found, name, namespace = self._address(obj)
        path = found.path(name, namespace, subresource)
        return self.transport.call(
            "PUT", path, _options(), body=obj, what=f"update {_title(found.kind, name, namespace)}"
        )

    def patch(
        self, api_version: str, kind: str, name: str, namespace: str = "", *, body: Obj, subresource: str = ""
    ) -> Obj:
        """Merge a patch into an object (RFC 7386: null deletes).

        Raises:
            OutsideError: no answer, or a refusal.
        """
        path = self.transport.kind(api_version, kind).path(name, namespace, subresource)
        what = f"patch {_title(kind, name, namespace)}"
        return self.transport.call("PATCH", path, _options(), body=body, media_type=MERGE, what=what)

    def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        propagation: str = "Background",
        uid: str = "",
    ) -> bool:
        """Delete an object; False if it was not there.

        Args:
            api_version: of its kind.
            kind: its kind.
            name: its name.
            namespace: its namespace.
            propagation: "Background", "Foreground" or "Orphan": what happens to what it owns.
            uid: delete this very object only, not a new one of the same name.

        Raises:
            Conflict: the object there has another uid.
            OutsideError: no answer, or a refusal.
        """
        path = self.transport.kind(api_version, kind).path(name, namespace)
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        options |= {"preconditions": {"uid": uid}} if uid else {}
        try:
            self.transport.call("DELETE", path, body=options, what=f"delete {_title(kind, name, namespace)}")
        except NotFound:
            return False
        return True

    def approve_csr(self, name: str, *, uid: str, reason: str, message: str) -> Obj:
        """Approve the CertificateSigningRequest that was looked at; one that is approved already stays as it is.

        Raises:
            Conflict: somebody decided about it in between, or it is another one of the same name now.
            OutsideError: no answer, or a refusal.
        """
        csr = self.get("certificates.k8s.io/v1", "CertificateSigningRequest", name)
        if csr["metadata"]["uid"] != uid:
            raise Conflict(
                f"the certificate request {name} is not the one that was looked at",
                system="kubernetes",
                cause="it was deleted, and another one was filed under its name",
                remedy="look at it again",
            )
        conditions = (csr.get("status") or {}).get("conditions") or []
        if any(condition["type"] == "Approved" for condition in conditions):
            return csr
        condition = {"type": "Approved", "status": "True", "reason": reason, "message": message}
        csr["status"] = {**(csr.get("status") or {}), "conditions": [*conditions, condition]}
        return self.replace(csr, subresource="approval")

    # ---- following ---------------------------------------------------------------------------------------------

    def inform(
        self,
        api_version: str,
        kind: str,
        on_change: Callable[[Change], None],
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        on_error: Callable[[OutsideError], None] | None = None,
    ) -> Informer:
        """Follow a kind in a thread of its own until the informer is stopped.

        Args:
            api_version: of the kind.
            kind: the kind.
            on_change: called for each object that is there at first ("ADDED") and for each change, in order.
            namespace: only this namespace's objects.
            labels: label selector.
            fields: field selector.
            on_error: called when the connection is lost; the informer goes on trying.
        """
        informer = Informer(self, api_version, kind, on_change, on_error or (lambda _error: None))
        informer.select(namespace=namespace, labels=labels, fields=fields)
        informer.start()
        return informer

    def watch(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        seconds: float | None = None,
    ) -> Iterator[Change]:
        """As `inform`, as an iterator: what is there ("ADDED"), then every change, for some seconds or for ever.

        Raises:
            OutsideError: no answer, or a refusal.
        """
        informer = Informer(self, api_version, kind, lambda _change: None, lambda _error: None)
        informer.select(namespace=namespace, labels=labels, fields=fields)
        return informer.changes(seconds)

    def forward(self, service: str, namespace: str, port: int) -> Forward:
        """A port of 127.0.0.1 that leads to a Service's pods; a context manager, `address` is where it listens.

        Raises:
            NotFound: no such Service or port.
            OutsideError: no answer, or a refusal.
        """
        return Forward(self, service, namespace, port)

    def _address(self, obj: Obj) -> tuple[Kind, str, str]:
        found = self.transport.kind(obj["apiVersion"], obj["kind"])
        metadata = obj["metadata"]
        namespace = metadata.get("namespace") or "default" if found.namespaced else ""
        return found, metadata.get("name", ""), namespace


def _options(*, dry_run: bool = False) -> dict[str, str]:
    return {"fieldManager": MANAGER, "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})


def _title(kind: str, name: str, namespace: str) -> str:
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
