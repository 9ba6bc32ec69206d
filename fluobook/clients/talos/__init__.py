"""Talos nodes: what answers at an address, a node in maintenance mode, and a configured node."""

from __future__ import annotations

from fluobook.clients.rpc import Address
from fluobook.clients.talos.node import MaintenanceNode, TalosNode, connect, maintenance
from fluobook.clients.talos.probe import MachineIdentity, Mode, Probe, probe, same_uuid
from fluobook.clients.talos.resources import Applied, EtcdMember, EtcdStatus, MachineStage

__all__ = [
    "Address",
    "Applied",
    "EtcdMember",
    "EtcdStatus",
    "MachineIdentity",
    "MachineStage",
    "MaintenanceNode",
    "Mode",
    "Probe",
    "TalosNode",
    "connect",
    "maintenance",
    "probe",
    "same_uuid",
]
