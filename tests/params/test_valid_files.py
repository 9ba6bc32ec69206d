"""What must be accepted: the phases themselves, and variants of them that differ in one thing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from papermill.iorw import read_yaml_file
from ruamel.yaml import YAML

from fluobook.params import load, parse, phases, repository_root

ROOT = repository_root(Path(__file__))
SHIPPED = [ROOT / "params" / f"{name}.yaml" for name in ("phase1", "phase2", "phase3")]
VARIANTS = sorted((Path(__file__).parent / "valid").glob("*.yaml"))


@pytest.mark.parametrize("path", [*SHIPPED, *VARIANTS], ids=lambda path: path.stem)
def test_a_valid_file_is_accepted(path: Path) -> None:
    assert load(path).platform.nodes


@pytest.mark.parametrize("path", [*SHIPPED, ROOT / "params" / "versions.yaml"], ids=lambda path: path.stem)
def test_a_file_means_the_same_in_yaml_1_1_and_1_2(path: Path) -> None:
    old = yaml.safe_load(path.read_text())
    assert old == YAML(typ="safe", pure=True).load(path.read_text())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_papermill_hands_over_what_the_file_says(path: Path) -> None:
    assert parse(read_yaml_file(str(path))).platform == load(path).platform


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_file_names_its_schema_for_editors(path: Path) -> None:
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")


def test_the_shipped_phases_are_the_phases() -> None:
    assert phases(ROOT) == ("phase1", "phase2", "phase3")


def test_phase_1_is_the_laptop_of_the_specification() -> None:
    platform = load("phase1").platform
    sizes = [
        (node.role, node.cores, node.memory_gib, node.boot_disk_gib, node.data_disk_gib) for node in platform.nodes
    ]
    assert sizes == [("controlplane", 2, 8, 20, None), ("worker", 4, 12, 20, 80), ("worker", 4, 12, 20, 80)]
    assert platform.storage.replicas == 1
    assert [pool.name for pool in platform.network.load_balancer.pools] == ["ingress", "mqtt"]


def test_phase_2_keeps_that_topology_on_one_server() -> None:
    laptop, server = load("phase1").platform, load("phase2").platform
    assert [node.name for node in server.nodes] == [node.name for node in laptop.nodes]
    assert server.failure_domains == ("pve1",)
    assert server.storage.replicas == 1


def test_phase_3_spreads_over_hosts_with_a_vip_a_mesh_and_a_copy_on_each() -> None:
    platform = load("phase3").platform
    assert {node.host for node in platform.control_planes} == {"pve1", "pve2", "pve3"}
    assert platform.storage.replicas == len(platform.failure_domains) == 3
    assert platform.api_address == platform.network.vip
    assert platform.wireguard is not None
    assert [peer.host for peer in platform.wireguard.hosts] == ["pve1", "pve2", "pve3"]


def test_phases_have_clusters_of_their_own_so_that_their_keys_stay_apart() -> None:
    bundles = {load(path).platform.secrets.bundle for path in SHIPPED}
    assert len(bundles) == len(SHIPPED)
