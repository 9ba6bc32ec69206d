"""What no program here plays: Cilium's addresses, ingress-nginx, storage, the platform's operators.

They are the embedded cluster's controllers at work on the real one, by way of its mirror.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fluobook_lab.kube.controllers import loop
from fluobook_lab.kube.controllers.ingresses import Ingresses
from fluobook_lab.kube.controllers.operators import Operators
from fluobook_lab.kube.controllers.services import LoadBalancers
from fluobook_lab.kube.controllers.volumes import Volumes

if TYPE_CHECKING:
    from fluobook_lab.clock import Clock
    from fluobook_lab.engines.mirror import MirroredStore
    from fluobook_lab.kube.controllers.loop import Controller
    from fluobook_lab.kube.storage import Key

READ: frozenset[Key] = frozenset(
    {("", "pods"), ("", "namespaces"), ("", "nodes"), ("", "secrets"), ("", "persistentvolumes")}
    | {("networking.k8s.io", "networkpolicies"), ("coordination.k8s.io", "leases")}
    | {("cilium.io", "ciliumloadbalancerippools"), ("cilium.io", "ciliuml2announcementpolicies")}
)
"""Kinds that controllers and flows look at besides those that wake them."""


def controllers(store: MirroredStore, clock: Clock, seed: int) -> list[Controller]:
    """The controllers, not yet at work."""
    return [LoadBalancers(store), Ingresses(store), Volumes(store, clock, seed), Operators(store, clock, seed)]


def kinds(found: list[Controller]) -> set[Key]:
    """What the mirror must follow for them."""
    return {key for controller in found for key in controller.sources} | READ


def start(store: MirroredStore, clock: Clock, found: list[Controller]) -> list[asyncio.Task[None]]:
    """Put them to work."""
    return [asyncio.create_task(loop.run(store, clock, controller)) for controller in found]
