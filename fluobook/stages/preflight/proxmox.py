"""Checks of Proxmox VE: reachability and version, the token's privileges, and what its hosts offer to the VMs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fluobook import gitops
from fluobook.clients.proxmox import ProxmoxClient
from fluobook.clients.proxmox.privileges import Need, grant_commands, missing, required
from fluobook.context import RunContext
from fluobook.errors import FluobookError
from fluobook.gitops import charts
from fluobook.params import Platform, ProxmoxEndpoint, cpus
from fluobook.params.versions import major_of
from fluobook.stages import create_vms
from fluobook.stages.core.check import Check, CheckGroup, checks_until_error
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.create_vms.plan import Observation
from fluobook.stages.create_vms.settings import disks

GIB = 2**30
IMAGE_GIB = 0.5
"""Room for a Talos ISO: they have some 100 to 300 MiB."""
BRIDGES = frozenset({"bridge", "OVSBridge"})
_FREE = "every host is online; VM ids, names and addresses of the nodes are free or ours"


def _proxmox(context: RunContext) -> Iterator[Check]:
    """All checks of the endpoints. One that is not reachable gets no further checks: they would only repeat the error.

    What stage 1 would find is observed while the privileges are read, and only if all endpoints are reachable.
    """
    endpoints = context.platform.proxmox
    versions = in_parallel(lambda e: _version(context.platform, e, context.proxmox(e.name)), endpoints)
    yield from (check for _, check in versions)
    reachable = [(endpoint, major) for endpoint, (major, _) in zip(endpoints, versions, strict=True) if major]
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(_place_for_vms, context) if len(reachable) == len(endpoints) else None
        privileges = in_parallel(
            lambda e: _privileges(context.platform, e[0], e[1], context.proxmox(e[0].name)), reachable
        )
        yield from (check for checks in privileges for check in checks)
        observation, check = future.result() if future else (None, None)
    if check:
        yield check
    used = set(context.platform.hosts)
    hosts = [(endpoint, host) for endpoint, _ in reachable for host in endpoint.hosts if host in used]

    features = required_features(context)
    yield from cpu_type_checks(context.platform.vm.cpu, features)

    def host_checks(endpoint: ProxmoxEndpoint, host: str) -> list[Check]:
        wanted, client = Wanted.of(context.platform, endpoint, host, observation), context.proxmox(endpoint.name)
        mesh = context.platform.wireguard
        made_later = mesh and mesh.vxlan  # by stage host-network
        checks = _host(wanted, "" if made_later else context.platform.network.bridge, client)
        if features and context.platform.vm.cpu in cpus.HOST:
            name = _features_of(f"the CPU of {host}", features)
            checks += checks_until_error(name, lambda: host_cpu_checks(name, features, client.cpu_features(host)))
        return checks

    yield from (check for checks in in_parallel(lambda h: host_checks(*h), hosts) for check in checks)


def required_features(context: RunContext) -> dict[str, str]:
    """The CPU features that workloads of the platform's tree need, with the workloads' names."""
    platform = context.platform
    tree = gitops.for_phase(platform, gitops.of(platform, context.root))
    kinds = {document.kind for app in tree.applications for document in tree.deployed_by(app)}
    return dict(charts.CPU_FEATURES[kind] for kind in sorted(kinds & charts.CPU_FEATURES.keys()))


def _features_of(subject: str, features: Mapping[str, str]) -> str:
    return f"{subject} has what the workloads need: {', '.join(f'{f} ({w})' for f, w in features.items())}"


def cpu_type_checks(cpu: str, features: Mapping[str, str]) -> Iterator[Check]:
    """Whether the CPU type of the VMs is known to lack a feature."""
    if features:
        lacking = [feature for feature in features if cpus.lacks(cpu, feature)]
        result = f"{cpu} lacks {', '.join(lacking)}" if lacking else cpu
        remedy = "set vm.cpu: host in the params, or a custom model that has it"
        yield Check(_features_of("the CPU type of the VMs", features), not lacking, result, remedy)


def host_cpu_checks(name: str, features: Mapping[str, str], present: frozenset[str]) -> Iterator[Check]:
    """Whether a host's CPU has the features; no check where the host does not report them."""
    if present:
        lacking = sorted(features.keys() - present)
        remedy = "put the workers on another host, or leave the workload out"
        yield Check(name, not lacking, f"it lacks {', '.join(lacking)}" if lacking else "present", remedy)


def _version(platform: Platform, endpoint: ProxmoxEndpoint, client: ProxmoxClient) -> tuple[int, Check]:
    """The major version, 0 if the endpoint is not reachable, and the check."""
    name = f'Proxmox VE endpoint "{endpoint.name}" is reachable, its version is supported'
    try:
        version = str(client.version()["version"])
    except FluobookError as error:
        return 0, Check.failed(name, error)
    if platform.trusted_ca(endpoint.host, endpoint.port):
        trust = "a CA file"
    else:
        trust = "its pinned fingerprint" if endpoint.fingerprint else "the system's authorities"
    supported = platform.supported.matrix.proxmox
    return int(major_of(version)), Check(
        name,
        major_of(version) in supported,
        f"version {version}, certificate verified by {trust}",
        f"supported are {', '.join(supported)} (params/versions.yaml)",
    )


def needs_of(platform: Platform, endpoint: ProxmoxEndpoint, major: int) -> tuple[Need, ...]:
    """Everything that the token of an endpoint needs for all stages, in a major version of Proxmox VE."""
    return required(
        major,
        hosts=sorted({node.host for node in platform.nodes if node.host in endpoint.hosts}),
        image_storages=[endpoint.image_storage],
        disk_storages=[endpoint.disk_storage],
        bridge=platform.network.bridge,
        vlan=platform.network.vlan,
        zone=platform.wireguard.vxlan.zone if platform.wireguard and platform.wireguard.vxlan else "",
        pool=platform.vm.pool,
        cpu=platform.vm.cpu,
    )


def _privileges(platform: Platform, endpoint: ProxmoxEndpoint, major: int, client: ProxmoxClient) -> list[Check]:
    name = f'the token has every required privilege on "{endpoint.name}"'
    needs = needs_of(platform, endpoint, major)

    def check() -> Iterator[Check]:
        granted = client.permissions()
        lacking = missing(needs, granted)
        listed = "; ".join(f"{need.privilege} on {need.path}" for need in lacking)
        held = f"{len(needs)} privileges on {len({need.path for need in needs})} paths"
        # The failure catalogue knows the text (F02).
        none = "" if any(granted.values()) else "the token has no privileges at all; "
        commands = grant_commands(lacking, endpoint.token_id, among=needs)
        remedy = "as root on one of its hosts:\n" + "\n".join(commands)
        yield Check(name, not lacking, f"{none}missing: {listed}" if lacking else held, remedy)

    return checks_until_error(name, check)


def _place_for_vms(context: RunContext) -> tuple[Observation | None, Check]:
    """What stage 1 would observe; its plan refuses to touch what is not ours."""
    try:
        observation = create_vms.STAGE.observe(context)
        create_vms.STAGE.plan(context.platform, observation)
    except FluobookError as error:
        return None, Check.failed(_FREE, error)
    ours = sum(observation.ours(node) is not None for node in context.platform.nodes)
    return observation, Check(_FREE, passed=True, result=f"{len(context.platform.nodes) - ours} free, {ours} ours")


@dataclass(frozen=True)
class Wanted:
    """What a host's storages have to hold.

    Args:
        host: the host.
        image_storage: where the image goes.
        disk_storage: where disks go.
        image_gib: room for the image; 0 if it is there.
        disks_gib: the disks of the host's nodes that do not exist yet.
        shared_gib: the same for all hosts of the endpoint: what a shared storage has to hold.
    """

    host: str
    image_storage: str
    disk_storage: str
    image_gib: float = 0
    disks_gib: float = 0
    shared_gib: float = 0

    @classmethod
    def of(cls, platform: Platform, endpoint: ProxmoxEndpoint, host: str, observation: Observation | None) -> Wanted:
        """What is planned for a host; no room is required where it is unknown what exists already."""
        if observation is None:
            return cls(host, endpoint.image_storage, endpoint.disk_storage)
        new = [node for node in platform.nodes if node.host in endpoint.hosts and observation.ours(node) is None]
        sizes = [(node.host, sum(disks(node).values())) for node in new]
        return cls(
            host,
            endpoint.image_storage,
            endpoint.disk_storage,
            0 if host in observation.images else IMAGE_GIB,
            sum(size for node_host, size in sizes if node_host == host),
            sum(size for _, size in sizes),
        )

    def needs(self, storage: Mapping[str, Any]) -> float:
        """GiB that a storage of the host has to hold."""
        new = self.shared_gib if storage.get("shared") else self.disks_gib
        image = self.image_gib if storage["storage"] == self.image_storage else 0
        return image + (new if storage["storage"] == self.disk_storage else 0)


def _host(wanted: Wanted, bridge: str, client: ProxmoxClient) -> list[Check]:
    name, host = f"{wanted.host} has the bridge {bridge}", wanted.host
    return [
        *(checks_until_error(name, lambda: [bridge_check(name, client.networks(host), bridge)]) if bridge else ()),
        *checks_until_error(f"{host} has the storages", lambda: storage_checks(wanted, client.storages(host))),
    ]


def bridge_check(name: str, networks: Sequence[Mapping[str, Any]], bridge: str) -> Check:
    """Whether a host has the bridge; Proxmox VE does not list what the token may not use."""
    bridges = sorted(str(network["iface"]) for network in networks if network.get("type") in BRIDGES)
    return Check(
        name,
        bridge in bridges,
        bridge if bridge in bridges else f"listed: {', '.join(bridges) or 'none'}",
        "set network.bridge in the params to one that it has, or grant SDN.Use and SDN.Audit on the bridge",
    )


def storage_checks(wanted: Wanted, listed: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Whether the storages exist, accept the content and have room for it."""
    storages = {str(storage["storage"]): storage for storage in listed}
    yield _accepts(wanted.host, storages, wanted.image_storage, "iso", "image_storage")
    yield _accepts(wanted.host, storages, wanted.disk_storage, "images", "disk_storage")
    names = dict.fromkeys((wanted.image_storage, wanted.disk_storage))
    usable = [storages[name] for name in names if name in storages]
    full = [text for storage in usable if (text := _lacks_room(storage, wanted.needs(storage)))]
    if full or (usable and all(map(_is_active, usable))):
        yield Check(
            f"{wanted.host} has room for what is planned",
            not full,
            "; ".join(full) or f"{wanted.disks_gib:g} GiB of disks are planned",
            "free space on it, choose another storage in the params, or plan smaller disks",
        )


def _accepts(host: str, storages: Mapping[str, Mapping[str, Any]], name: str, content: str, field: str) -> Check:
    """Whether a storage exists, is active and accepts a kind of content; `field` of the params chooses the storage."""
    storage = storages.get(name)
    accepted = _contents(storage) if storage else []
    remedy = f"pvesm status on {host}"
    if storage is None:
        problem = f"listed: {', '.join(sorted(storages)) or 'no storage'}"
    elif not _is_active(storage):
        problem = "it is not active"
    elif content not in accepted:
        problem = f"it accepts {', '.join(accepted) or 'nothing'}"
        remedy = f"pvesm set {name} --content {','.join([*accepted, content])}"
    else:
        problem = ""
    others = sorted(other for other in storages if content in _contents(storages[other]))
    if others:
        remedy += f", or set proxmox[].{field} in the params to {' or '.join(others)}"
    return Check(f"{host} has the storage {name} for {content}", not problem, problem or name, remedy)


def _contents(storage: Mapping[str, Any]) -> list[str]:
    return [content for content in str(storage.get("content", "")).split(",") if content]


def _is_active(storage: Mapping[str, Any]) -> bool:
    return bool(int(storage.get("active", 1))) and bool(int(storage.get("enabled", 1)))


def _lacks_room(storage: Mapping[str, Any], gib: float) -> str:
    """The free and planned space of a storage with too little room; "" if it has enough, or reports none."""
    if "avail" not in storage or int(storage["avail"]) >= gib * GIB:
        return ""
    return f"{storage['storage']} has {int(storage['avail']) / GIB:.1f} GiB free, {gib:g} GiB are planned"


GROUPS = (CheckGroup("Proxmox VE can be checked", _proxmox),)
