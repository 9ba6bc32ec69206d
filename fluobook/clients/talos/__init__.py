"""Talos nodes: what answers at an address, the way in without a configuration, and the way in with our certificates."""

from __future__ import annotations

from fluobook.clients.rpc import Address
from fluobook.clients.talos.identity import MachineIdentity, same_uuid
from fluobook.clients.talos.maintenance import MaintenanceNode, maintenance
from fluobook.clients.talos.node import TalosNode, connect
from fluobook.clients.talos.probe import Mode, Probe, probe
from fluobook.clients.talos.resources import Event, Kind, Resource
from fluobook.clients.talos.values import Applied, EtcdMember, MachineStage, Service, Snapshot, Version

__all__ = [
    "Address",
    "Applied",
    "EtcdMember",
    "Event",
    "Kind",
    "MachineIdentity",
    "MachineStage",
    "MaintenanceNode",
    "Mode",
    "Probe",
    "Resource",
    "Service",
    "Snapshot",
    "TalosNode",
    "Version",
    "connect",
    "maintenance",
    "probe",
    "same_uuid",
]
