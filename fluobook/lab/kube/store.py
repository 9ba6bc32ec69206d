"""The API without its HTTP: read, create, apply, patch, delete and watch objects, as the server and the lab's parts do.

All calls are synchronous and belong on the lab's event loop. Results are copies: change them as you like.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fluobook.lab.kube import admission, decoding, lifecycle, ownership, patches
from fluobook.lab.kube.addresses import SERVICES, ServiceAddresses
from fluobook.lab.kube.errors import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    invalid,
    no_such_path,
    not_found,
)
from fluobook.lab.kube.identity import Write
from fluobook.lab.kube.objects import Obj, clone
from fluobook.lab.kube.resources import Registry, Resource, custom_resources
from fluobook.lab.kube.selectors import field_selector, label_selector
from fluobook.lab.kube.storage import Storage
from fluobook.lab.kube.watching import Watch

if TYPE_CHECKING:
    from fluobook.lab.kube.storage import Key

SERVICE_CIDR = "10.96.0.0/12"
SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_NAMESPACES = ("", "namespaces")
_DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions")
Objs = list[Obj]
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


class Store:
    """The objects of one cluster, under the rules of the API.

    Args:
        seed: makes uids and generated names the same in every run.
        service_cidr: where cluster IPs come from.
    """

    def __init__(self, seed: int = 0, service_cidr: str = SERVICE_CIDR) -> None:
        self._addresses = ServiceAddresses(service_cidr)
        self.registry = Registry()
        self.storage = Storage()
        self._seed = seed
        self._born: Counter[str] = Counter()
        for name in SYSTEM_NAMESPACES:
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    # ---- by apiVersion and kind: for controllers, nodes and Argo CD --------------------------------------------

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
        return _shown(resource, found) if resource and found else None

    def list(self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> Objs:
        """All objects of a kind (of one namespace, if it is named) that fit the selectors; [] for an unknown kind."""
        resource = self.registry.find(api_version, kind)
        if resource is None:
            return []
        by_label, by_field = label_selector(labels), field_selector(fields)
        found = self.storage.scan(resource.store_key, namespace)
        return [_shown(resource, obj) for _, obj in found if by_label(obj) and by_field(obj)]

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

    # ---- by resource and key: for the HTTP server --------------------------------------------------------------

    def read(self, resource: Resource, key: Key) -> Obj:
        """One object.

        Raises:
            ApiError: 404.
        """
        return _shown(resource, self._stored(resource, key))

    def insert(self, resource: Resource, namespace: str, obj: Obj, write: Write) -> Obj:
        """As `create`, in the namespace of the request."""
        obj = clone(obj)
        decoding.headed(resource, namespace, obj)
        metadata = obj["metadata"]
        if write.manager:
            metadata.pop("managedFields", None)
        self._name(resource, metadata)
        space = self._namespace(resource, obj)
        key = (namespace if resource.namespaced else "", metadata["name"])
        if self.storage.get(resource.store_key, key) is not None:
            raise already_exists(resource, metadata["name"])
        obj = decoding.typed(resource, obj, write)
        lifecycle.new_object(resource, obj, write.user, self._uid(resource, key))
        obj = decoding.completed(resource, obj)
        if resource.store_key == SERVICES:
            self._addresses.assign(resource, obj, [other for _, other in self.storage.scan(SERVICES)])
        decoding.validated(resource, obj)
        self._admit(resource, None, obj, space, write)
        if write.manager:
            ownership.updated(resource, None, obj, ownership.Manager(write.manager, "Update"))
        return self._commit(resource, key, obj, write)

    def replace(self, resource: Resource, key: Key, obj: Obj, write: Write) -> Obj:
        """As `update`, at the key of the request."""
        old = self._stored(resource, key)
        obj = clone(obj)
        decoding.headed(resource, key[0], obj)
        if obj["metadata"].get("name", key[1]) != key[1]:
            raise bad_request(
                f"the name of the object ({obj['metadata']['name']}) does not match the name on the URL ({key[1]})"
            )
        return self._write_over(resource, key, old, obj, write)

    def change(self, resource: Resource, key: Key, body: Any, media_type: str, write: Write) -> Obj:
        """As `patch`."""
        old = self._stored(resource, key)
        if media_type == patches.APPLY:
            return self.merge_in(resource, key, body, write)
        new = patches.patched(resource, old, body, media_type)
        return self._write_over(resource, key, old, new, write)

    def merge_in(self, resource: Resource, key: Key, intent: Obj, write: Write) -> Obj:
        """As `apply`."""
        intent = clone(intent)
        decoding.headed(resource, key[0], intent)
        intent["metadata"].setdefault("name", key[1])
        if intent["metadata"].get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        decoding.typed_for_apply(resource, intent)
        manager = ownership.Manager(write.manager, "Apply", write.subresource)
        silent = replace(write, manager="")
        old = self.storage.get(resource.store_key, key)
        if old is None:
            bare: Obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": key[1]}}
            bare["metadata"] |= {"namespace": key[0]} if resource.namespaced else {}
            new = ownership.applied(resource, bare, intent, manager, force=True)
            return self.insert(resource, key[0], new, silent)
        new = ownership.applied(resource, old, intent, manager, force=write.force)
        if version := intent["metadata"].get("resourceVersion"):
            new["metadata"]["resourceVersion"] = version
        return self._write_over(resource, key, old, new, silent)

    def remove(self, resource: Resource, key: Key, options: Obj, write: Write) -> Obj:
        """As `delete`: the object on its way out, or a Status if it is gone."""
        old = self._stored(resource, key)
        self._check_preconditions(resource, old, options)
        admission.node_restriction(resource, old, old, write.user)
        policy = options.get("propagationPolicy") or ("Orphan" if options.get("orphanDependents") else "Background")
        extra = {"Foreground": lifecycle.FOREGROUND, "Orphan": lifecycle.ORPHAN}.get(policy, "")
        grace = self._grace(resource, old, options)
        waits = extra or old["metadata"].get("finalizers") or grace or resource.store_key == _NAMESPACES
        if waits:
            marked = lifecycle.marked_for_deletion(old, grace, extra)
            return self._commit(resource, key, marked, write) if marked != old else _shown(resource, old)
        if not write.dry_run:
            self._take_out(resource, key)
        details = {"name": key[1], "kind": resource.plural, "uid": old["metadata"]["uid"]}
        details |= {"group": resource.group} if resource.group else {}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    # ---- the steps of a write ----------------------------------------------------------------------------------

    def _write_over(self, resource: Resource, key: Key, old: Obj, new: Obj, write: Write) -> Obj:
        asked = new["metadata"].get("resourceVersion")
        if asked not in (None, "", old["metadata"]["resourceVersion"]):
            raise conflict(resource, key[1])
        fields = new["metadata"].get("managedFields")
        new = decoding.typed(resource, lifecycle.kept(resource, old, new, write.subresource), write)
        new = decoding.completed(resource, new)
        if problem := _approval_problem(new, write):
            raise invalid(resource, key[1], [("status.conditions", problem)])
        if resource.store_key == SERVICES:
            _keep_addresses(old, new)
            self._addresses.assign(resource, new, [other for _, other in self.storage.scan(SERVICES)])
        if write.subresource not in ("status", "approval"):
            lifecycle.unchanged_where_immutable(resource, old, new)
            decoding.validated(resource, new)
            self._admit(resource, old, new, self._namespace_of(resource, new), write)
        if write.manager:
            ownership.updated(resource, old, new, ownership.Manager(write.manager, "Update", write.subresource))
        elif fields is not None:
            new["metadata"]["managedFields"] = fields
        if lifecycle.is_new_generation(resource, old, new) and "generation" in old["metadata"]:
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if new == old:
            return _shown(resource, old)
        return self._commit(resource, key, new, write)

    def _commit(self, resource: Resource, key: Key, obj: Obj, write: Write) -> Obj:
        if write.dry_run:
            return _shown(resource, obj)
        obj = {**obj, "metadata": dict(obj["metadata"])}
        if resource.store_key == _DEFINITIONS:
            lifecycle.established(obj)
            group, plural = obj["spec"]["group"], obj["spec"]["names"]["plural"]
            self.registry.replace_custom(group, plural, custom_resources(obj))
        ending = obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers")
        spaced = resource.store_key == _NAMESPACES and obj["spec"].get("finalizers")
        if ending and not spaced and not obj["metadata"].get("deletionGracePeriodSeconds"):
            self.storage.put(resource.store_key, key, obj)
            return _shown(resource, self._take_out(resource, key))
        return _shown(resource, self.storage.put(resource.store_key, key, obj))

    def _take_out(self, resource: Resource, key: Key) -> Obj:
        gone = self.storage.remove(resource.store_key, key)
        if resource.store_key == _DEFINITIONS:
            group, plural = gone["spec"]["group"], gone["spec"]["names"]["plural"]
            self.storage.forget((group, plural))
            self.registry.replace_custom(group, plural, [])
        return gone

    def _admit(self, resource: Resource, old: Obj | None, new: Obj, namespace: Obj | None, write: Write) -> None:
        admission.node_restriction(resource, old, new, write.user)
        if resource.plural == "certificatesigningrequests":
            admission.certificate_request(resource, new)
        if namespace is not None and (old is None or old.get("spec") != new.get("spec")):
            admission.pod_security(resource, new, namespace, write)

    # ---- small questions ---------------------------------------------------------------------------------------

    def _address(self, obj: Obj) -> tuple[Resource, Key]:
        resource = self.registry.by_kind(obj.get("apiVersion", ""), obj.get("kind", ""))
        namespace = obj["metadata"].get("namespace") or "default" if resource.namespaced else ""
        return resource, (namespace, obj["metadata"].get("name", ""))

    def _stored(self, resource: Resource, key: Key) -> Obj:
        if not resource.storable:
            raise no_such_path()
        found = self.storage.get(resource.store_key, key)
        if found is None:
            raise not_found(resource, key[1])
        return found

    def _namespace(self, resource: Resource, obj: Obj) -> Obj | None:
        if not resource.namespaced:
            return None
        wanted = obj["metadata"]["namespace"]
        found = self.storage.get(_NAMESPACES, ("", wanted))
        admission.namespace_is_open(resource, obj["metadata"]["name"], found, wanted)
        return found

    def _namespace_of(self, resource: Resource, obj: Obj) -> Obj | None:
        return self.storage.get(_NAMESPACES, ("", obj["metadata"]["namespace"])) if resource.namespaced else None

    def _name(self, resource: Resource, metadata: Obj) -> None:
        prefix = metadata.get("generateName")
        if not metadata.get("name") and prefix:
            where = f"{resource.qualified}/{metadata.get('namespace', '')}/{prefix}"
            self._born[where] += 1
            chosen = random.Random(f"{self._seed}/{where}/{self._born[where]}")
            metadata["name"] = prefix + "".join(chosen.choices(_SUFFIX, k=5))
        if not metadata.get("name"):
            what = "Required value: name or generateName is required"
            raise invalid(resource, "", [("metadata.name", what)])

    def _uid(self, resource: Resource, key: Key) -> str:
        where = f"{resource.qualified}/{key[0]}/{key[1]}"
        self._born[where] += 1
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._seed}/{where}/{self._born[where]}"))

    def _check_preconditions(self, resource: Resource, old: Obj, options: Obj) -> None:
        for field, value in (options.get("preconditions") or {}).items():
            if value and old["metadata"].get(field) != value:
                what = "UID" if field == "uid" else "ResourceVersion"
                why = f"Precondition failed: {what} in precondition: {value}, {what} in object meta: "
                raise conflict(resource, old["metadata"]["name"], why + str(old["metadata"].get(field)))

    def _grace(self, resource: Resource, old: Obj, options: Obj) -> int:
        """Seconds that a pod gets to end; only a pod that runs somewhere has any."""
        if resource.store_key != ("", "pods") or not old["spec"].get("nodeName"):
            return 0
        asked = options.get("gracePeriodSeconds")
        return old["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked


def _keep_addresses(old: Obj, new: Obj) -> None:
    """A Service that does not name its address keeps it, unless it becomes an ExternalName."""
    if new["spec"].get("type") != "ExternalName":
        for key in ("clusterIP", "clusterIPs"):
            if key in old["spec"]:
                new["spec"].setdefault(key, old["spec"][key])


def _approval_problem(new: Obj, write: Write) -> str:
    conditions = (new.get("status") or {}).get("conditions") or []
    return lifecycle.approval_problem(conditions) if write.subresource == "approval" else ""


def _shown(resource: Resource, obj: Obj) -> Obj:
    """A copy in the version that was asked for; conversion between versions changes the apiVersion alone."""
    return {**clone(obj), "apiVersion": resource.api_version}


__all__ = ["ApiError", "Store"]
