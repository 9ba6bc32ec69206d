"""Talos nodes as the lab plays them: real gRPC and TLS on reserved ports, a state machine in world time behind them."""

from __future__ import annotations

from fluobook_lab.talos.boot import Delays
from fluobook_lab.talos.config import MachineConfiguration
from fluobook_lab.talos.machine import TalosMachine
from fluobook_lab.talos.machines import Call, Cluster, TalosMachines

__all__ = ["Call", "Cluster", "Delays", "MachineConfiguration", "TalosMachine", "TalosMachines"]
