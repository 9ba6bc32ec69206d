"""Proxmox VE: that it answers as itself, that the token may do what has to be done, and that there is room for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluobook.clients.proxmox.privileges import grant_commands, missing, required
from fluobook.errors import FluobookError
from fluobook.params.versions import major_of
from fluobook.stages.core.check import Check, CheckGroup, checks_until_error
from fluobook.stages.core.executor import in_parallel
from fluobook.stages.create_vms.observe import Observation, observe
from fluobook.stages.create_vms.plan import plan
from fluobook.stages.preflight import room

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fluobook.context import RunContext
    from fluobook.params import ProxmoxEndpoint

_FREE = "every host is online; numbers, names and addresses of the nodes are free, or ours"


@dataclass(frozen=True)
class _Answer:
    """What an endpoint says of itself: its major version, and the check about it."""

    major: int
    check: Check


def _checks(context: RunContext) -> Iterator[Check]:
    """An endpoint that does not answer is asked nothing more; what remains would only repeat it."""
    endpoints = context.platform.proxmox
    answers = in_parallel(lambda endpoint: _version(context, endpoint), endpoints)
    yield from (answer.check for answer in answers)
    up = [(endpoint, answer) for endpoint, answer in zip(endpoints, answers, strict=True) if answer.major]
    with ThreadPoolExecutor(1) as beside:
        machines = beside.submit(_machines, context) if len(up) == len(endpoints) else None
        yield from (check for checks in in_parallel(lambda one: _rights(context, *one), up) for check in checks)
        seen, check = machines.result() if machines else (None, None)
    yield from [check] if check else []
    yield from _hosts(context, [endpoint for endpoint, _ in up], seen)


def _version(context: RunContext, endpoint: ProxmoxEndpoint) -> _Answer:
    claim = f"Proxmox VE {endpoint.name} answers, and is a version that is supported"
    try:
        version = str(context.proxmox(endpoint.name).version()["version"])
    except FluobookError as error:
        return _Answer(0, Check.failed(claim, error))
    known = context.platform.supported.matrix.proxmox
    check = Check(
        claim,
        major_of(version) in known,
        f"{version}, its certificate verified by {_trust(context, endpoint)}",
        f"supported are {', '.join(known)} (params/versions.yaml)",
    )
    return _Answer(int(major_of(version)), check)


def _trust(context: RunContext, endpoint: ProxmoxEndpoint) -> str:
    if context.platform.trusted_ca(endpoint.host, endpoint.port):
        return "a CA file"
    return "its pinned fingerprint" if endpoint.fingerprint else "the system's authorities"


def _rights(context: RunContext, endpoint: ProxmoxEndpoint, answer: _Answer) -> list[Check]:
    claim = f"the token has every privilege that is needed on {endpoint.name}"
    hosts = sorted({node.host for node in context.platform.nodes if node.host in endpoint.hosts})
    needs = required(
        answer.major,
        hosts=hosts,
        image_storages=[endpoint.image_storage],
        disk_storages=[endpoint.disk_storage],
        bridge=context.platform.network.bridge,
    )

    def look() -> Iterable[Check]:
        lacking = missing(needs, context.proxmox(endpoint.name).permissions())
        told = "; ".join(f"{need.privilege} on {need.path}" for need in lacking)
        commands = grant_commands(lacking, endpoint.token_id, among=needs)
        yield Check(
            claim,
            not lacking,
            f"it lacks {told}" if lacking else f"{len(needs)} privileges on {len({need.path for need in needs})} paths",
            "as root on a host of it:\n" + "\n".join(commands),
        )

    return checks_until_error(claim, look)


def _machines(context: RunContext) -> tuple[Observation | None, Check]:
    """What stage 1 would see; its plan refuses what is in the way."""
    try:
        seen = observe(context)
        plan(context.platform, seen)
    except FluobookError as error:
        return None, Check.failed(_FREE, error)
    ours = sum(seen.ours(node) is not None for node in context.platform.nodes)
    return seen, Check(_FREE, passed=True, result=f"{len(context.platform.nodes) - ours} free, {ours} ours")


def _hosts(context: RunContext, endpoints: Iterable[ProxmoxEndpoint], seen: Observation | None) -> list[Check]:
    used = set(context.platform.hosts)
    asked = [(endpoint, host) for endpoint in endpoints for host in endpoint.hosts if host in used]
    found = in_parallel(lambda one: _host(context, *one, seen), asked)
    return [check for checks in found for check in checks]


def _host(context: RunContext, endpoint: ProxmoxEndpoint, host: str, seen: Observation | None) -> list[Check]:
    client = context.proxmox(endpoint.name)
    wanted = room.Wanted.of(context.platform, endpoint, host, seen)
    bridge = f"{host} has the bridge {context.platform.network.bridge}"
    return [
        *checks_until_error(
            bridge, lambda: [room.bridge(bridge, client.networks(host), context.platform.network.bridge)]
        ),
        *checks_until_error(f"{host} has the storages", lambda: room.storages(wanted, client.storages(host))),
    ]


GROUPS = (CheckGroup("Proxmox VE can be looked at", _checks),)
