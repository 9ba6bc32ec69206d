"""Nodes: how many, how large, and with which disks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.params.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.params.platform import Platform

SMALLEST_BOOT_DISK_GIB = 12
"""Below this, image pulls put a node under disk pressure."""

_SMALLEST = {"controlplane": {"memory_gib": 2, "cores": 2}, "worker": {"memory_gib": 1, "cores": 1}}


def control_planes_are_odd(platform: Platform) -> Iterator[Problem]:
    """An even number of etcd members survives no more losses than one member less."""
    count = len(platform.control_planes)
    if count % 2 == 0:
        found = f"{count} control planes" if count else "no control plane"
        yield Problem("platform.nodes", found, "the number of control planes must be odd", "etcd wants 1, 3 or 5")


def there_are_workers(platform: Platform) -> Iterator[Problem]:
    """Workloads and their volumes live on workers."""
    if not platform.workers:
        yield Problem("platform.nodes", "no worker", "there must be a worker", "add a node with role: worker")


def nodes_are_large_enough(platform: Platform) -> Iterator[Problem]:
    """Talos' own minimum for memory and cores, and a boot disk that takes the images."""
    for node in platform.nodes:
        path = f"platform.nodes.{node.name}"
        for field, least in _SMALLEST[node.role].items():
            if getattr(node, field) < least:
                yield Problem(
                    f"{path}.{field}", getattr(node, field), f"is too small for a {node.role}", f"{least} at least"
                )
        if node.boot_disk_gib < SMALLEST_BOOT_DISK_GIB:
            usual = f"{SMALLEST_BOOT_DISK_GIB} at least, 20 is usual"
            yield Problem(f"{path}.boot_disk_gib", node.boot_disk_gib, "would fill up with images", usual)


def workers_have_data_disks(platform: Platform) -> Iterator[Problem]:
    """Longhorn keeps its volumes on the workers' data disks, and on nothing else."""
    for node in platform.nodes:
        path = f"platform.nodes.{node.name}.data_disk_gib"
        if node.role == "worker" and node.data_disk_gib is None:
            yield Problem(path, None, "is required for a worker", "Longhorn keeps its volumes there; 80 is usual")
        if node.role == "controlplane" and node.data_disk_gib is not None:
            yield Problem(
                path, node.data_disk_gib, "is of no use to a control plane", "leave it out; Longhorn runs on workers"
            )


def replicas_fit_the_failure_domains(platform: Platform) -> Iterator[Problem]:
    """Two copies on one host fail together."""
    domains = platform.failure_domains
    if platform.workers and platform.storage.replicas > len(domains):
        rule = f"is more than the {len(domains)} failure domains ({', '.join(domains)})"
        yield Problem("platform.storage.replicas", platform.storage.replicas, rule, f"{len(domains)} at most")
