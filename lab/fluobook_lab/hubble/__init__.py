"""Hubble relay as the lab plays it: flows between the pods there are, as the network policies there are decide."""

from __future__ import annotations

from fluobook_lab.hubble.relay import Relay
from fluobook_lab.hubble.source import Endpoint, FlowSource, Port, Traffic

__all__ = ["Endpoint", "FlowSource", "Port", "Relay", "Traffic"]
