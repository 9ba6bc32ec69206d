"""Machine configurations that are wrong in one way each: the real programs refuse them, by name."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.errors import FluobookError
from fluobook.lab.engines.control_plane import ControlPlane
from fluobook.lab.talos.config import MachineConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ADDRESS, BOUND = "10.10.0.10", 180


def _without(*path: str) -> Callable[[dict[str, Any]], None]:
    def spoil(main: dict[str, Any]) -> None:
        for name in path[:-1]:
            main = main[name]
        main.pop(path[-1])

    return spoil


def _with(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def spoil(main: dict[str, Any]) -> None:
        for name in path[:-1]:
            main = main.setdefault(name, {})
        main[path[-1]] = value

    return spoil


SPOILED = {
    "no authority of the cluster": (_without("cluster", "ca"), "cluster.ca"),
    "no key of the cluster's authority": (_without("cluster", "ca", "key"), "cluster.ca"),
    "no aggregator authority": (_without("cluster", "aggregatorCA"), "cluster.aggregatorCA"),
    "no authority of etcd": (_without("cluster", "etcd", "ca"), "cluster.etcd.ca"),
    "no service account key": (_without("cluster", "serviceAccount"), "cluster.serviceAccount.key"),
    "a secretbox key that is none": (_with("nonsense", "cluster", "secretboxEncryptionSecret"), "secret"),
    "an admission plugin that nobody knows": (
        _with(
            [{"name": "PodSecurity", "configuration": {"kind": "Nonsense"}}], "cluster", "apiServer", "admissionControl"
        ),
        "PodSecurity",
    ),
    "a service network that is none": (
        _with(["nonsense"], "cluster", "network", "serviceSubnets"),
        "service-cluster-ip-range",
    ),
    "a flag that the API server does not have": (
        _with("1", "cluster", "apiServer", "extraArgs", "nonsense"),
        "nonsense",
    ),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_configuration_is_refused_by_name(
    how: str, configuration: MachineConfiguration, programs: dict[str, str], tmp_path: Path, background: Any
) -> None:
    spoil, named = SPOILED[how]
    main = copy.deepcopy(dict(configuration.main))
    spoil(main)
    spoiled = MachineConfiguration(main, configuration.documents)

    async def start() -> None:
        plane = ControlPlane(programs, tmp_path / "engine")
        try:
            await plane.begin("cp-1", spoiled, ADDRESS)
            await plane.serve("cp-1", spoiled, ADDRESS)
        finally:
            await plane.stop()

    with pytest.raises(FluobookError) as caught:
        asyncio.run_coroutine_threadsafe(start(), background.loop).result(BOUND)
    assert named in f"{caught.value.message} {caught.value.cause}"
