"""Talos nodes of the lab: gRPC and TLS on reserved ports, and a state machine in simulated time behind them."""

from __future__ import annotations

from fluobook_lab.talos.boot import TalosMachines
from fluobook_lab.talos.config import MachineConfiguration
from fluobook_lab.talos.node import Call, Cluster, Delays, TalosMachine

__all__ = ["Call", "Cluster", "Delays", "MachineConfiguration", "TalosMachine", "TalosMachines"]
