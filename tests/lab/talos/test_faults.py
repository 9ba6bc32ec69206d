"""What goes wrong on the way to a node, and that nothing is done twice or taken for done."""

from __future__ import annotations

import pytest

from fluobook.clients.talos import maintenance
from fluobook.clients.talos.resources import HOSTNAME
from fluobook.errors import Conflict, Unreachable


def ready(world):
    world.power_on("cp-1")
    world.wait_mode("maintenance")
    return maintenance(world.address())


def booted(world):
    world.wait(lambda: world.do(lambda: "cri" in world.machines.node("cp-1").services))
    return world.connect()


def test_a_busy_node_is_asked_again(make_world):
    world = make_world("talos.apply-busy-once")
    assert ready(world).apply_configuration(world.controlplane()).mode == "NO_REBOOT"
    assert not world.machines.faults.on("talos.apply-busy-once")


def test_a_lost_answer_to_a_configuration_is_told_and_the_node_goes_on(make_world):
    world = make_world("talos.apply-lost-once")
    with pytest.raises(Unreachable):
        ready(world).apply_configuration(world.controlplane())
    assert booted(world).apply_configuration(world.controlplane(), dry_run=True).unchanged


def test_a_lost_answer_to_a_bootstrap_leaves_one_etcd(make_world):
    world = make_world("talos.bootstrap-lost-once")
    ready(world).apply_configuration(world.controlplane())
    node = booted(world)
    with pytest.raises(Unreachable):
        node.bootstrap()
    with pytest.raises(Conflict):
        node.bootstrap()
    assert len(world.machines.etcds) == 1


def test_a_read_over_a_broken_connection_is_asked_again(make_world):
    world = make_world("talos.read-lost-once", "talos.read-lost-once")
    assert ready(world).get(HOSTNAME).spec["hostname"] == "cp-1"
    assert not world.machines.faults.on("talos.read-lost-once")


def test_a_failed_installation_ends_in_maintenance_again(make_world):
    world = make_world("talos.install-fails-once")
    node = ready(world)
    before = node.identity().fingerprint
    node.apply_configuration(world.controlplane())
    world.wait(lambda: world.wait_mode("maintenance").fingerprint != before)
    maintenance(world.address()).apply_configuration(world.controlplane())
    assert booted(world).version().tag == "v1.13.9"
