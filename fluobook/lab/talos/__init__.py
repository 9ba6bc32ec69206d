"""Talos nodes as the lab plays them: real gRPC and TLS on reserved ports, a state machine in world time behind them."""

from __future__ import annotations

from fluobook.lab.talos.boot import Delays
from fluobook.lab.talos.config import MachineConfiguration
from fluobook.lab.talos.machine import TalosMachine
from fluobook.lab.talos.machines import Call, Cluster, TalosMachines

__all__ = ["Call", "Cluster", "Delays", "MachineConfiguration", "TalosMachine", "TalosMachines"]
