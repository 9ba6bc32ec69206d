"""The API without its HTTP: read, create, apply, patch, delete and watch objects, as the server and the lab do.

All calls are synchronous and belong on the lab's event loop. Results are copies: change them as you like.
"""

from __future__ import annotations

import hashlib
import ipaddress
import random
import uuid
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube import admission, decoding, lifecycle, ownership, patches
from fluobook_lab.kube.access import Write
from fluobook_lab.kube.errors import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    no_such_path,
    not_found,
    outdated,
)
from fluobook_lab.kube.objects import SERVICES, Obj, clone
from fluobook_lab.kube.resources import Resource, custom_resources
from fluobook_lab.kube.selectors import field_selector, label_selector
from fluobook_lab.kube.storage import Reads, in_version

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluobook_lab.kube.resources import Resource
    from fluobook_lab.kube.storage import Key


_LONGEST = 58
"""Of a prefix; what is made up has room after it in a DNS label."""
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


class Names:
    """Makes names and uids.

    Args:
        seed: other seeds give others.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._born: Counter[str] = Counter()

    def complete(self, resource: Resource, metadata: Obj) -> None:
        """Give an object its name, if it asks for one by `generateName`.

        Raises:
            ApiError: 422, it has neither.
        """
        prefix = metadata.get("generateName")
        if not metadata.get("name") and prefix:
            where = f"{resource.qualified}/{metadata.get('namespace', '')}/{prefix}"
            self._born[where] += 1
            chosen = random.Random(f"{self._seed}/{where}/{self._born[where]}")
            metadata["name"] = prefix[:_LONGEST] + "".join(chosen.choices(_SUFFIX, k=5))
        if not metadata.get("name"):
            problem = "Required value: name or generateName is required"
            raise invalid(resource, "", [("metadata.name", problem)])

    def uid(self, resource: Resource, key: Key) -> str:
        """The uid of a new object; one that comes again under the same name gets another."""
        where = f"{resource.qualified}/{key[0]}/{key[1]}"
        self._born[where] += 1
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._seed}/{where}/{self._born[where]}"))


RESERVED = 256
"""The first addresses are only given to those who ask for them by name."""
NODE_PORTS = range(30000, 32768)


class ServiceAddresses:
    """Gives addresses; which one depends on the Service's name, so that it is the same in every run.

    Args:
        cidr: the service network.
    """

    def __init__(self, cidr: str) -> None:
        self._network = ipaddress.ip_network(cidr)

    def assign(self, resource: Resource, service: Obj, others: Iterable[Obj]) -> None:
        """Complete a Service in place.

        Raises:
            ApiError: 422, the address that it asks for is taken.
        """
        spec = service["spec"]
        others = [other["spec"] for other in others if other["metadata"].get("uid") != service["metadata"].get("uid")]
        if spec["type"] == "ExternalName":
            return
        taken = {other.get("clusterIP") for other in others} - {"None", None}
        asked = spec.get("clusterIP")
        is_outside = asked not in ("None", "", None) and ipaddress.ip_address(asked) not in self._network
        if asked in taken or is_outside:
            why = "it is not in the service network" if is_outside else "provided IP is already allocated"
            problem = f"Invalid value: {asked}: {why}"
            raise invalid(resource, service["metadata"]["name"], [("spec.clusterIPs", problem)])
        if not asked:
            spec["clusterIP"] = self._free(_hash(service), taken)
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
        if spec["type"] in ("LoadBalancer", "NodePort"):
            ports = {port.get("nodePort") for other in others for port in other.get("ports") or []}
            _assign_ports(service, ports)

    def _free(self, start: int, taken: set[str | None]) -> str:
        size = min(self._network.num_addresses - RESERVED - 1, 1 << 16)
        offsets = (RESERVED + (start + step) % size for step in range(size))
        return next(str(self._network[offset]) for offset in offsets if str(self._network[offset]) not in taken)


def _assign_ports(service: Obj, taken: set[int | None]) -> None:
    for number, port in enumerate(service["spec"].get("ports") or []):
        if not port.get("nodePort"):
            start = _hash(service) + number
            offsets = (NODE_PORTS[(start + step) % len(NODE_PORTS)] for step in range(len(NODE_PORTS)))
            port["nodePort"] = next(candidate for candidate in offsets if candidate not in taken)
        taken.add(port["nodePort"])


def _hash(service: Obj) -> int:
    name = f"{service['metadata'].get('namespace', '')}/{service['metadata']['name']}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])


_NAMESPACES = ("", "namespaces")
_DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions")


class ResourceStore(Reads):
    """Objects by resource and key (namespace and name).

    Args:
        seed: makes uids and generated names the same in every run.
        service_cidr: where cluster IPs come from.
    """

    def __init__(self, seed: int, service_cidr: str) -> None:
        super().__init__()
        self._names = Names(seed)
        self._addresses = ServiceAddresses(service_cidr)

    def read(self, resource: Resource, key: Key) -> Obj:
        """One object.

        Raises:
            ApiError: 404.
        """
        return in_version(resource, self._stored(resource, key))

    def insert(self, resource: Resource, namespace: str, obj: Obj, write: Write) -> Obj:
        """As `create`, in the namespace of the request."""
        obj = clone(obj)
        decoding.check_head(resource, namespace, obj)
        metadata = obj["metadata"]
        if metadata.get("resourceVersion"):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        if write.manager:
            metadata.pop("managedFields", None)
        self._names.complete(resource, metadata)
        space = self._namespace(resource, obj)
        key = (namespace if resource.namespaced else "", metadata["name"])
        obj = decoding.typed(resource, obj, write)
        lifecycle.new_object(resource, obj, write.user, self._names.uid(resource, key))
        obj = decoding.completed(resource, obj)
        if resource.store_key == SERVICES:
            self._addresses.assign(resource, obj, [other for _, other in self.storage.scan(SERVICES)])
        self._admit(resource, None, obj, space, write)
        decoding.validated(resource, obj)
        if there := self.storage.get(resource.store_key, key):
            raise already_exists(resource, metadata["name"], going="deletionTimestamp" in there["metadata"])
        if write.manager:
            ownership.updated(resource, None, obj, ownership.Manager(write.manager, "Update"))
        return self._commit(resource, key, obj, write)

    def replace(self, resource: Resource, key: Key, obj: Obj, write: Write) -> Obj:
        """As `update`, at the key of the request."""
        obj = clone(obj)
        decoding.check_head(resource, key[0], obj)
        decoding.same_name(obj, key[1])
        old = self._stored(resource, key)
        return self._write_over(resource, key, old, obj, write)

    def change(self, resource: Resource, key: Key, body: Any, media_type: str, write: Write) -> Obj:
        """As `patch`."""
        if media_type == patches.APPLY:
            return self.merge_in(resource, key, body, write)
        old = self._stored(resource, key)
        new = patches.patched(resource, old, body, media_type)
        decoding.same_name(new, key[1])
        decoding.same_namespace(resource, new, key[0])
        decoding.check_patched(resource, new, write)
        return self._write_over(resource, key, old, new, write)

    def merge_in(self, resource: Resource, key: Key, intent: Obj, write: Write) -> Obj:
        """As `apply`."""
        intent = clone(decoding.check_applied(resource, intent))
        decoding.check_head(resource, key[0], intent)
        intent["metadata"].setdefault("name", key[1])
        decoding.same_name(intent, key[1])
        if intent["metadata"].get("managedFields") is not None:
            raise bad_request("metadata.managedFields must be nil")
        decoding.check_applied_fields(resource, intent)
        manager = ownership.Manager(write.manager, "Apply", write.subresource)
        silent = replace(write, manager="")
        old = self.storage.get(resource.store_key, key)
        if old is None:
            bare: Obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": key[1]}}
            bare["metadata"] |= {"namespace": key[0]} if resource.namespaced else {}
            new = ownership.applied(resource, bare, intent, manager, force=True)
            return self.insert(resource, key[0], new, silent)
        new = ownership.applied(resource, old, intent, manager, force=write.force)
        for field in ("resourceVersion", "uid"):
            if value := intent["metadata"].get(field):
                new["metadata"][field] = value
        return self._write_over(resource, key, old, new, silent)

    def remove(self, resource: Resource, key: Key, options: Obj, write: Write) -> Obj:
        """As `delete`: the object on its way out, or a Status if it is gone."""
        old = self._stored(resource, key)
        self._check_preconditions(resource, old, options)
        admission.node_restriction(resource, old, old, write.user)
        admission.may_be_deleted(resource, key[1])
        admission.longhorn_node(resource, old, None, *self._on_longhorn_node(key[1]))
        policy = options.get("propagationPolicy") or ("Orphan" if options.get("orphanDependents") else "Background")
        extra = {"Foreground": lifecycle.FOREGROUND, "Orphan": lifecycle.ORPHAN}.get(policy, "")
        grace = self._grace(resource, old, options)
        waits = extra or old["metadata"].get("finalizers") or grace or resource.store_key == _NAMESPACES
        if waits:
            marked = lifecycle.marked_for_deletion(old, grace, extra)
            return self._commit(resource, key, marked, write) if marked != old else in_version(resource, old)
        if not write.dry_run:
            self._take_out(resource, key)
        if resource.store_key in (("", "pods"), SERVICES):
            return in_version(resource, old)
        details = {"name": key[1], "kind": resource.plural, "uid": old["metadata"]["uid"]}
        details |= {"group": resource.group} if resource.group else {}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _write_over(self, resource: Resource, key: Key, old: Obj, new: Obj, write: Write) -> Obj:
        _check_is_same(resource, old, new)
        fields = new["metadata"].get("managedFields")
        new = decoding.typed(resource, lifecycle.kept(resource, old, new, write.subresource), write)
        new = decoding.completed(resource, new)
        if problem := _approval_problem(old, new, write):
            raise invalid(resource, key[1], [("status.conditions", problem)])
        if resource.store_key == SERVICES:
            _keep_addresses(old, new)
            self._addresses.assign(resource, new, [other for _, other in self.storage.scan(SERVICES)])
        if write.subresource not in ("status", "approval"):
            decoding.validated(resource, new, lifecycle.change_problems(resource, old, new))
            self._admit(resource, old, new, self._namespace_of(resource, new), write)
        if write.manager:
            ownership.updated(
                resource, old, new, ownership.Manager(write.manager, "Update", write.subresource or write.through)
            )
        elif fields is not None:
            new["metadata"]["managedFields"] = fields
        if lifecycle.is_new_generation(resource, old, new) and "generation" in old["metadata"]:
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if new == old:
            return in_version(resource, old)
        return self._commit(resource, key, new, write)

    def _commit(self, resource: Resource, key: Key, obj: Obj, write: Write) -> Obj:
        if write.dry_run:
            return in_version(resource, obj)
        obj = {**obj, "metadata": dict(obj["metadata"])}
        if resource.store_key == _DEFINITIONS:
            lifecycle.established(obj)
            group, plural = obj["spec"]["group"], obj["spec"]["names"]["plural"]
            self.registry.replace_custom(group, plural, custom_resources(obj))
        ending = obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers")
        spaced = resource.store_key == _NAMESPACES and obj["spec"].get("finalizers")
        if ending and not spaced and not obj["metadata"].get("deletionGracePeriodSeconds"):
            self.storage.put(resource.store_key, key, obj)
            return in_version(resource, self._take_out(resource, key))
        return in_version(resource, self.storage.put(resource.store_key, key, obj))

    def _take_out(self, resource: Resource, key: Key) -> Obj:
        gone = self.storage.remove(resource.store_key, key)
        if resource.store_key == _DEFINITIONS:
            group, plural = gone["spec"]["group"], gone["spec"]["names"]["plural"]
            self.storage.forget((group, plural))
            self.registry.replace_custom(group, plural, [])
        return gone

    def _admit(self, resource: Resource, old: Obj | None, new: Obj, namespace: Obj | None, write: Write) -> None:
        admission.node_restriction(resource, old, new, write.user)
        if old is not None:
            admission.longhorn_node(resource, old, new)
        if resource.plural == "certificatesigningrequests":
            admission.certificate_request(resource, new)
        if old is None and namespace is not None and resource.store_key == ("", "pods"):
            self._has_service_account(resource, new)
        if namespace is not None and (old is None or old.get("spec") != new.get("spec") or resource.kind != "Pod"):
            admission.pod_security(resource, new, namespace, write)

    def _on_longhorn_node(self, name: str) -> tuple[int, int]:
        """The replicas and the engines on one of Longhorn's nodes."""
        replicas = [each["spec"].get("nodeID") for _, each in self.storage.scan(("longhorn.io", "replicas"))]
        volumes = self.storage.scan(("longhorn.io", "volumes"))
        engines = [(each.get("status") or {}).get("currentNodeID") for _, each in volumes]
        return replicas.count(name), engines.count(name)

    def _has_service_account(self, resource: Resource, pod: Obj) -> None:
        """Refuse a pod of a service account that is not there; that of each namespace comes with it in a moment."""
        wanted, space = pod["spec"].get("serviceAccountName") or "default", pod["metadata"]["namespace"]
        if wanted != "default" and self.storage.get(("", "serviceaccounts"), (space, wanted)) is None:
            why = f'error looking up service account {space}/{wanted}: serviceaccount "{wanted}" not found'
            raise forbidden(resource, pod["metadata"]["name"], why)

    def _stored(self, resource: Resource, key: Key) -> Obj:
        if not resource.storable:
            raise no_such_path()
        obj = self.storage.get(resource.store_key, key)
        if obj is None:
            raise not_found(resource, key[1])
        return obj

    def _namespace(self, resource: Resource, obj: Obj) -> Obj | None:
        if not resource.namespaced:
            return None
        wanted = obj["metadata"]["namespace"]
        namespace = self.storage.get(_NAMESPACES, ("", wanted))
        admission.namespace_is_open(resource, obj["metadata"]["name"], namespace, wanted)
        return namespace

    def _namespace_of(self, resource: Resource, obj: Obj) -> Obj | None:
        return self.storage.get(_NAMESPACES, ("", obj["metadata"]["namespace"])) if resource.namespaced else None

    def _check_preconditions(self, resource: Resource, old: Obj, options: Obj) -> None:
        for field, value in (options.get("preconditions") or {}).items():
            if value and old["metadata"].get(field) != value:
                kind = "UID" if field == "uid" else "ResourceVersion"
                why = f"the {kind} in the precondition ({value}) is not the object's ({old['metadata'].get(field)})"
                raise outdated(resource, old["metadata"]["name"], why)

    def _grace(self, resource: Resource, old: Obj, options: Obj) -> int:
        """Seconds that a pod gets to end; only a pod that runs somewhere has any."""
        if resource.store_key != ("", "pods") or not old["spec"].get("nodeName"):
            return 0
        asked = options.get("gracePeriodSeconds")
        return old["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked


def _check_is_same(resource: Resource, old: Obj, new: Obj) -> None:
    """Refuse to write over another version, or another object of that name, than the writer knows."""
    name, version = old["metadata"]["name"], new["metadata"].get("resourceVersion")
    if version and not str(version).isdecimal():
        raise ApiError(500, "", f'resourceVersion "{version}" is not a number')
    if version not in (None, "", old["metadata"]["resourceVersion"]):
        raise conflict(resource, name)
    if new["metadata"].get("uid") not in (None, "", old["metadata"]["uid"]):
        problem = f'Invalid value: "{new["metadata"]["uid"]}": field is immutable'
        raise invalid(resource, name, [("metadata.uid", problem)])


def _keep_addresses(old: Obj, new: Obj) -> None:
    """A Service that does not name its address keeps it, unless it becomes an ExternalName."""
    if new["spec"].get("type") != "ExternalName":
        for key in ("clusterIP", "clusterIPs"):
            if key in old["spec"]:
                new["spec"].setdefault(key, old["spec"][key])


def _approval_problem(old: Obj, new: Obj, write: Write) -> str:
    before, after = ((obj.get("status") or {}).get("conditions") or [] for obj in (old, new))
    return lifecycle.approval_problem(before, after) if write.subresource == "approval" else ""


SERVICE_CIDR = "10.96.0.0/12"
SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
Objs = list[Obj]


class Store(ResourceStore):
    """The objects of one cluster by apiVersion and kind, as controllers, nodes and Argo CD name them.

    Args:
        seed: makes uids and generated names the same in every run.
        service_cidr: where cluster IPs come from.
    """

    def __init__(self, seed: int = 0, service_cidr: str = SERVICE_CIDR) -> None:
        super().__init__(seed, service_cidr)
        self.authorities: tuple[str, ...] = ()
        """The authorities by which kubelets' certificates are verified, PEM; without any, all are good."""
        self._begin()

    def _begin(self) -> None:
        for name in SYSTEM_NAMESPACES:
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def contents(self) -> list[tuple[str, Obj]]:
        """Every object, with the key under which etcd has it."""
        return [
            ("/".join(filter(None, ("/registry", resource[0], resource[1], *key))), obj)
            for resource in self.storage.resources()
            for key, obj in self.storage.scan(resource)
        ]

    def restore(self, objs: Objs, revision: int) -> None:
        """Hold these objects and no others; without any, those of a new cluster."""
        contents: dict[Key, dict[Key, Obj]] = defaultdict(dict)
        definitions = [obj for obj in objs if obj["kind"] == "CustomResourceDefinition"]
        for obj in [obj for _, obj in self.storage.scan(_DEFINITIONS)]:
            self.registry.replace_custom(obj["spec"]["group"], obj["spec"]["names"]["plural"], [])
        for obj in definitions:
            group, plural = obj["spec"]["group"], obj["spec"]["names"]["plural"]
            self.registry.replace_custom(group, plural, custom_resources(obj))
        for obj in objs:
            resource, key = self._address(obj)
            contents[resource.store_key][key] = obj
        self.storage.restore(contents, revision)
        if not objs:
            self._begin()

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Obj:
        """One object.

        Raises:
            ApiError: 404, no such object or kind.
        """
        return self.read(self.registry.by_kind(api_version, kind), (namespace, name))

    def list(self, api_version: str, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> Objs:
        """All objects of a kind (of one namespace, if it is named) that fit the selectors; [] for an unknown kind."""
        resource = self.registry.find(api_version, kind)
        if resource is None:
            return []
        by_label, by_field = label_selector(labels), field_selector(fields)
        entries = self.storage.scan(resource.store_key, namespace)
        return [in_version(resource, obj) for _, obj in entries if by_label(obj) and by_field(obj)]

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
