"""The Kubernetes API as the stages use it: plain objects in, plain objects out, typed errors.

Blocking, and safe for threads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fluobook.clients.https import NO_CONNECTION
from fluobook.clients.kube.forward import Forward
from fluobook.clients.kube.transport import KUBELET_UNREACHABLE, VERSION, WRITTEN, Kind, Obj, Transport, endpoint, title
from fluobook.clients.kube.watching import Change, Informer
from fluobook.errors import Conflict, InvalidAnswer, NotFound, OutsideError, Unreachable

MANAGER = "fluobook"
"""Our field manager in server-side apply."""
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
TOO_MANY = "429"
"""The status with which an eviction is refused that a disruption budget does not allow now."""


class Kube(Transport):
    """One Kubernetes cluster, as one user; see `from_kubeconfig`."""

    @classmethod
    def from_kubeconfig(
        cls,
        kubeconfig: Mapping[str, Any],
        *,
        address: tuple[str, int] | None = None,
        deadline: float | None = None,
    ) -> Kube:
        """The cluster and user of a kubeconfig's current context.

        Args:
            kubeconfig: its content; certificates inside it, `tls-server-name` heeded.
            address: (host, port) to connect to instead of `server`, see `platform.route`.
            deadline: seconds for a request.

        Raises:
            FluobookError: it is not a usable kubeconfig.
        """
        return cls(*endpoint(kubeconfig, address=address), deadline=deadline)

    def __repr__(self) -> str:
        return f"Kube({self.at.name})"

    # ---- the server itself -------------------------------------------------------------------------------------

    def version(self) -> str:
        """The server's version, such as "v1.35.2".

        Raises:
            OutsideError: no answer, or a refusal.
        """
        return str(self.call("GET", "/version", what="read the version", shape=VERSION)["gitVersion"])

    def ready(self) -> bool:
        """Whether the API server is ready; False if nothing answers, or if it answers that it is not.

        Raises:
            OutsideError: something else answers: its certificate is not trusted, it denies access, it is a web page.
        """
        try:
            self._require_ok("/readyz", "read its readiness")
        except OutsideError as error:
            if error.code in NO_CONNECTION or error.facts.get("status", "").startswith("5"):
                return False
            raise
        return True

    def _require_ok(self, path: str, what: str) -> None:
        answer = self.raw("GET", path, what=what)
        if answer.body.strip() != b"ok":
            raise self.http.unparsable(answer.body, what, ValueError('it is not "ok"'))

    def kubelet_answers(self, node: str) -> bool:
        """Whether the API server reaches a node's kubelet and accepts its serving certificate.

        Raises:
            Unreachable: the API server itself does not answer.
            InvalidAnswer: something else answers in its place.
        """
        try:
            self._require_ok(f"/api/v1/nodes/{node}/proxy/healthz", f"reach the kubelet of {node}")
        except Unreachable as error:
            # The API server answers 503 for itself and for a kubelet that it does not reach; only the text differs.
            if KUBELET_UNREACHABLE not in error.message:
                raise
            return False
        except InvalidAnswer:
            raise
        except OutsideError:
            return False
        return True

    def serving_certificate_days(self, node: str) -> int | None:
        """How many days a kubelet's serving certificate is still valid, as the kubelet's own metric says; None without.

        Raises:
            OutsideError: the API server does not reach the kubelet, or denies access.
        """
        answer = self.raw(
            "GET", f"/api/v1/nodes/{node}/proxy/metrics", what=f"read the metrics of the kubelet of {node}"
        )
        line = re.search(
            rb"^kubelet_certificate_manager_server_ttl_seconds(?:\{.*\})? ([-+.\de]+)$", answer.body, re.MULTILINE
        )
        return int(float(line[1]) // 86400) if line else None

    # ---- objects -----------------------------------------------------------------------------------------------

    def apply(self, obj: Obj, *, force: bool = False, dry_run: bool = False, manager: str = MANAGER) -> Obj:
        """Server-side apply: sets the fields that the object has, and leaves all others.

        Args:
            obj: apiVersion, kind, metadata.name and the fields we want to own.
            force: take fields that another manager owns with another value.
            dry_run: return the result without changing anything.
            manager: the field manager.

        Raises:
            Conflict: another manager owns fields with other values, and `force` is not set.
            Rejected: the object is invalid.
            OutsideError: no answer, or another refusal.
        """
        kind, name, namespace = self._address(obj)
        query = _options(dry_run=dry_run) | {"fieldManager": manager, "force": str(force).lower()}
        what = f"apply {title(kind.kind, name, namespace)}"
        return self.call(
            "PATCH", kind.path(name, namespace), query, body=obj, media_type=APPLY, what=what, shape=WRITTEN
        )

    def create(self, obj: Obj, *, dry_run: bool = False) -> Obj:
        """Create an object.

        Raises:
            Conflict: there is one of that name.
            Rejected: it is invalid.
            OutsideError: no answer, or another refusal.
        """
        kind, name, namespace = self._address(obj)
        what = f"create {title(kind.kind, name, namespace)}"
        return self.call(
            "POST", kind.path(namespace=namespace), _options(dry_run=dry_run), body=obj, what=what, shape=WRITTEN
        )

    def replace(self, obj: Obj, *, subresource: str = "") -> Obj:
        """Replace an object; with a resourceVersion, only if it was not changed since.

        Raises:
            Conflict: it was changed.
            OutsideError: no answer, or another refusal.
        """
        kind, name, namespace = self._address(obj)
        path = kind.path(name, namespace, subresource)
        what = f"update {title(kind.kind, name, namespace)}"
        return self.call("PUT", path, _options(), body=obj, what=what, shape=WRITTEN)

    def patch(
        self, api_version: str, kind: str, name: str, namespace: str = "", *, body: Obj, subresource: str = ""
    ) -> Obj:
        """Merge a patch into an object (RFC 7386: null deletes).

        Raises:
            OutsideError: no answer, or a refusal.
        """
        path = self.kind(api_version, kind).path(name, namespace, subresource)
        what = f"patch {title(kind, name, namespace)}"
        return self.call("PATCH", path, _options(), body=body, media_type=MERGE, what=what, shape=WRITTEN)

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
        path = self.kind(api_version, kind).path(name, namespace)
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        options |= {"preconditions": {"uid": uid}} if uid else {}
        try:
            self.call("DELETE", path, body=options, what=f"delete {title(kind, name, namespace)}")
        except NotFound:
            return False
        return True

    def evict(self, name: str, namespace: str, *, uid: str) -> str:
        """Evict a pod; "" once it is evicted or gone, else why its disruption budgets do not allow it now.

        Raises:
            Conflict: the pod there has another uid.
            OutsideError: no answer, or another refusal; two budgets for one pod are one.
        """
        metadata = {"name": name, "namespace": namespace}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": options}
        path = self.kind("v1", "Pod").path(name, namespace, "eviction")
        try:
            self.call("POST", path, body=body, what=f"evict {title('Pod', name, namespace)}")
        except NotFound:
            return ""
        except OutsideError as error:
            if error.facts.get("status") != TOO_MANY:
                raise
            return error.message
        return ""

    def approve_csr(self, name: str, *, uid: str, reason: str, message: str) -> Obj:
        """Approve the CertificateSigningRequest that was checked; an approved one stays unchanged.

        Raises:
            Conflict: somebody else decided meanwhile, or another CSR has its name now.
            OutsideError: no answer, or a refusal.
        """
        csr = self.get("certificates.k8s.io/v1", "CertificateSigningRequest", name)
        if csr["metadata"].get("uid") != uid:
            raise Conflict(
                f"the CSR {name} is not the one that was checked",
                system="kubernetes",
                cause="it was deleted, and another CSR was created under its name",
                remedy="run the stage again",
            )
        conditions = (csr.get("status") or {}).get("conditions") or []
        if any(condition["type"] == "Approved" for condition in conditions):
            return csr
        condition = {"type": "Approved", "status": "True", "reason": reason, "message": message}
        csr["status"] = {**(csr.get("status") or {}), "conditions": [*conditions, condition]}
        return self.replace(csr, subresource="approval")

    # ---- watching ---------------------------------------------------------------------------------------------

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
        """Watch a kind in a thread until the informer is stopped.

        Args:
            api_version: of the kind.
            kind: the kind.
            on_change: called for each existing object ("ADDED") and for each change, in order.
            namespace: only this namespace's objects.
            labels: label selector.
            fields: field selector.
            on_error: called when the connection is lost; the informer connects again.
        """
        selection = {"namespace": namespace, "labels": labels, "fields": fields}
        return Informer(self, api_version, kind, on_change, on_error or (lambda _error: None), selection=selection)

    def forward(self, service: str, namespace: str, port: int) -> Forward:
        """A port of 127.0.0.1 that leads to a Service's pods; a context manager, `address` is where it listens.

        Raises:
            NotFound: no such Service or port.
            OutsideError: no answer, or a refusal.
        """
        return Forward(self, service, namespace, port)

    def _address(self, obj: Obj) -> tuple[Kind, str, str]:
        kind = self.kind(obj["apiVersion"], obj["kind"])
        metadata = obj["metadata"]
        namespace = metadata.get("namespace") or "default" if kind.namespaced else ""
        return kind, metadata.get("name", ""), namespace


def _options(*, dry_run: bool = False) -> dict[str, str]:
    return {"fieldManager": MANAGER, "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
