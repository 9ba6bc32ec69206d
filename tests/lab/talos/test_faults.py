"""Injected faults on the way to a node; no change happens twice or is reported without having happened."""

from __future__ import annotations

import pytest

from fluobook.clients.talos import maintenance
from fluobook.clients.talos.resources import HOSTNAME
from fluobook.errors import Conflict, Unreachable


def ready(lab):
    lab.power_on("cp-1")
    lab.wait_mode("maintenance")
    return maintenance(lab.address())


def booted(lab):
    lab.wait(lambda: lab.do(lambda: "cri" in lab.machines.node("cp-1").services))
    return lab.connect()


def test_a_call_to_a_busy_node_is_retried(start_lab):
    lab = start_lab("talos.apply-busy-once")
    assert ready(lab).apply_configuration(lab.controlplane()).mode == "NO_REBOOT"
    assert not lab.machines.faults.on("talos.apply-busy-once")


def test_a_lost_answer_to_a_configuration_is_reported_and_the_node_continues(start_lab):
    lab = start_lab("talos.apply-lost-once")
    with pytest.raises(Unreachable):
        ready(lab).apply_configuration(lab.controlplane())
    assert booted(lab).apply_configuration(lab.controlplane(), dry_run=True).unchanged


def test_a_lost_answer_to_a_bootstrap_leaves_one_etcd(start_lab):
    lab = start_lab("talos.bootstrap-lost-once")
    ready(lab).apply_configuration(lab.controlplane())
    node = booted(lab)
    with pytest.raises(Unreachable):
        node.bootstrap()
    with pytest.raises(Conflict):
        node.bootstrap()
    assert len(lab.machines.etcds) == 1


def test_a_read_over_a_broken_connection_is_retried(start_lab):
    lab = start_lab("talos.read-lost-once", "talos.read-lost-once")
    assert ready(lab).get(HOSTNAME).spec["hostname"] == "cp-1"
    assert not lab.machines.faults.on("talos.read-lost-once")


def test_a_failed_installation_returns_to_maintenance(start_lab):
    lab = start_lab("talos.install-fails-once")
    node = ready(lab)
    before = node.identity().fingerprint
    node.apply_configuration(lab.controlplane())
    lab.wait(lambda: lab.wait_mode("maintenance").fingerprint != before)
    maintenance(lab.address()).apply_configuration(lab.controlplane())
    assert booted(lab).version().tag == "v1.13.9"


def test_a_file_outside_var_keeps_a_node_from_booting_until_its_configuration_is_right(lab):
    node = ready(lab)
    node.apply_configuration(lab.controlplane(files=[{"path": "/etc/motd", "op": "create", "content": "a"}]))
    lab.wait_mode("configured")
    lab.wait_stage("cp-1", "booting")
    assert "cri" not in lab.do(lambda: lab.machines.node("cp-1").services)
    with lab.connect() as connected:
        connected.apply_configuration(lab.controlplane())
    assert booted(lab).version().tag == "v1.13.9"
