"""What the API tells of itself: versions, groups and resources, in the old form and the aggregated one."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from fluobook_lab.kube.errors import no_such_group, no_such_path

if TYPE_CHECKING:
    from fluobook_lab.kube.objects import Obj
    from fluobook_lab.kube.resources import Registry, Resource

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def groups(registry: Registry) -> dict[str, dict[str, list[Resource]]]:
    """Group → version → resources; the preferred version of a group comes first."""
    found: dict[str, dict[str, list[Resource]]] = {}
    for resource in registry:
        found.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
    return found


def aggregated(registry: Registry, *, core: bool) -> Obj:
    """`APIGroupDiscoveryList` of /api (core) or /apis."""
    items = [
        {
            "metadata": {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None},
            "versions": [
                {"version": version, "resources": [r.discovery for r in resources], "freshness": "Current"}
                for version, resources in versions.items()
            ],
        }
        for group, versions in groups(registry).items()
        if (group == "") == core
    ]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def core_versions(address: str) -> Obj:
    """`APIVersions` of /api."""
    where = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": where}


def group_list(registry: Registry) -> Obj:
    """`APIGroupList` of /apis."""
    listed = [_group(name, list(versions)) for name, versions in groups(registry).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def group(registry: Registry, name: str) -> Obj:
    """`APIGroup` of /apis/GROUP.

    Raises:
        ApiError: 404.
    """
    found = groups(registry).get(name)
    if not name or found is None:
        raise no_such_group()
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, list(found))}


def _group(name: str, versions: list[str]) -> Obj:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def resource_list(registry: Registry, name: str, version: str) -> Obj:
    """`APIResourceList` of /api/v1 or /apis/GROUP/VERSION.

    Raises:
        ApiError: 404.
    """
    check_served(registry, name, version)
    found = groups(registry)[name][version]
    listed = [entry for resource in found for entry in _entries(resource)]
    api_version = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": listed}


def check_served(registry: Registry, group: str, version: str) -> None:
    """Refuse a group and version that are not served; how depends on whether the group is.

    Raises:
        ApiError: 404.
    """
    served = registry.versions()
    if (group, version) not in served:
        raise no_such_path() if any(group == one for one, _ in served) else no_such_group()


def _entries(resource: Resource) -> list[Obj]:
    told = resource.discovery
    entry = {
        "name": resource.plural,
        "singularName": told.get("singularResource", ""),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": told["verbs"],
    }
    entry |= {key: told[key] for key in ("shortNames", "categories") if told.get(key)}
    entry["storageVersionHash"] = storage_hash(resource)
    return [entry, *(_sub_entry(resource, sub) for sub in told.get("subresources", ()))]


_STORED_AS_BETA = frozenset({"CustomResourceDefinition", "VolumeAttributesClass"})


def storage_hash(resource: Resource) -> str:
    """What clients tell stored versions apart by: the first half of a digest of group, version and kind."""
    version = "v1beta1" if resource.kind in _STORED_AS_BETA else resource.version
    told = f"{resource.group}/{version}/{resource.kind}".encode()
    return base64.b64encode(hashlib.sha256(told).digest()[:8]).decode()


def _sub_entry(resource: Resource, sub: Obj) -> Obj:
    told = sub.get("responseKind") or {}
    other = told.get("group") and told["group"] != resource.group
    where = {"group": told["group"], "version": told["version"]} if other else {}
    return where | {
        "name": f"{resource.plural}/{sub['subresource']}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": (sub.get("responseKind") or {}).get("kind") or resource.kind,
        "verbs": sub["verbs"],
    }
