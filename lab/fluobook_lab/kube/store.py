"""The API without its HTTP: read, create, apply, patch, delete and watch objects, as the server and the lab's parts do.

All calls are synchronous and belong on the lab's event loop. Results are copies: change them as you like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import patches
from fluobook_lab.kube.identity import Write
from fluobook_lab.kube.objects import Obj, clone
from fluobook_lab.kube.selectors import field_selector, label_selector
from fluobook_lab.kube.watching import Watch
from fluobook_lab.kube.writing import Writes, shown

if TYPE_CHECKING:
    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.storage import Key

SERVICE_CIDR = "10.96.0.0/12"
SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
Objs = list[Obj]


class Store(Writes):
    """The objects of one cluster by apiVersion and kind, as controllers, nodes and Argo CD name them.

    Args:
        seed: makes uids and generated names the same in every run.
        service_cidr: where cluster IPs come from.
    """

    def __init__(self, seed: int = 0, service_cidr: str = SERVICE_CIDR) -> None:
        super().__init__(seed, service_cidr)
        for name in SYSTEM_NAMESPACES:
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Obj:
        """One object.

        Raises:
            ApiError: 404, no such object or kind.
        """
        return self.read(self.registry.by_kind(api_version, kind), (namespace, name))

    def find(self, api_version: str, kind: str, name: str, namespace: str = "") -> Obj | None:
        """One object, None if it or its kind does not exist."""
        resource = self.registry.find(api_version, kind)
        found = self.storage.get(resource.store_key, (namespace, name)) if resource else None
        return shown(resource, found) if resource and found else None

    def list(self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> Objs:
        """All objects of a kind (of one namespace, if it is named) that fit the selectors; [] for an unknown kind."""
        resource = self.registry.find(api_version, kind)
        if resource is None:
            return []
        by_label, by_field = label_selector(labels), field_selector(fields)
        found = self.storage.scan(resource.store_key, namespace)
        return [shown(resource, obj) for _, obj in found if by_label(obj) and by_field(obj)]

    def view(self, api_version: str, kind: str, namespace: str = "") -> Objs:
        """As `list`, but the stored objects themselves, not to be changed: for controllers, which look often."""
        resource = self.registry.find(api_version, kind)
        return [obj for _, obj in self.storage.scan(resource.store_key, namespace)] if resource else []

    def create(self, obj: Obj, write: Write = Write()) -> Obj:  # noqa: B008  (frozen)
        """Create an object of any kind.

        Raises:
            ApiError: 409 it exists, 422 it is invalid, 403 it is not admitted, 404 its kind or namespace is not there.
        """
        resource, key = self._address(obj)
        return self.insert(resource, key[0], obj, write)

    def update(self, obj: Obj, write: Write = Write()) -> Obj:  # noqa: B008
        """Replace an object, or its part under `write.subresource`.

        Raises:
            ApiError: 404, 409 (its resourceVersion is not the current one), 422, 403.
        """
        resource, key = self._address(obj)
        return self.replace(resource, key, obj, write)

    def apply(self, obj: Obj, *, manager: str, force: bool = False, dry_run: bool = False) -> Obj:
        """Server-side apply: create the object or merge it into what is there.

        Raises:
            ApiError: 409, fields are another manager's; 422, 403, 404 as in `create`.
        """
        resource, key = self._address(obj)
        return self.merge_in(resource, key, obj, Write(manager=manager, force=force, dry_run=dry_run))

    def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        body: Any,
        media_type: str = patches.MERGE,
        write: Write = Write(),  # noqa: B008
    ) -> Obj:
        """Patch an object; a merge patch unless another media type is given.

        Raises:
            ApiError: 404, 409, 415, 422, 403.
        """
        resource = self.registry.by_kind(api_version, kind)
        return self.change(resource, (namespace, name), body, media_type, write)

    def set_status(self, obj: Obj, status: Obj) -> Obj | None:
        """Write an object's status, if it is still there and differs; None if it is gone."""
        resource, key = self._address(obj)
        current = self.storage.get(resource.store_key, key)
        if current is None or current["metadata"]["uid"] != obj["metadata"]["uid"]:
            return None
        wanted = {**current, "status": clone(status), "metadata": dict(current["metadata"])}
        return self.replace(resource, key, wanted, Write(subresource="status"))

    def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        options: Obj | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """Delete an object; `options` are DeleteOptions (propagationPolicy, preconditions, gracePeriodSeconds).

        Raises:
            ApiError: 404, or 409 if a precondition does not hold.
        """
        resource = self.registry.by_kind(api_version, kind)
        return self.remove(resource, (namespace, name), options or {}, Write(dry_run=dry_run))

    def watch(self, api_version: str, kind: str, namespace: str = "") -> Watch:
        """Every change of a kind from now on; close it when done.

        Raises:
            ApiError: 404, no such kind.
        """
        resource = self.registry.by_kind(api_version, kind)
        return Watch(self.storage, resource.store_key, namespace)

    def _address(self, obj: Obj) -> tuple[Resource, Key]:
        resource = self.registry.by_kind(obj.get("apiVersion", ""), obj.get("kind", ""))
        namespace = obj["metadata"].get("namespace") or "default" if resource.namespaced else ""
        return resource, (namespace, obj["metadata"].get("name", ""))
