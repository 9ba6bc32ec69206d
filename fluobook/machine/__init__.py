"""Talos documents as pure functions of plain arguments: certificates, secrets, configurations, patches, schematics."""

from fluobook.machine.generation import Documents, generate
from fluobook.machine.merging import merge

__all__ = ["Documents", "generate", "merge"]
