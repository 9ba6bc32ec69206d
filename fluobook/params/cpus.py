"""CPU types of Proxmox VE and the CPU features that they lack."""

from __future__ import annotations

HOST = frozenset({"host", "max"})
"""Types that pass on what the host's own CPU has."""
TOO_OLD = frozenset({"kvm64", "qemu64", "kvm32", "qemu32", "486", "pentium", "x86-64-v1"})
"""Types without x86-64-v2, with which Talos halts at boot."""

_LEVELS = {"x86-64-v2", "x86-64-v2-AES", "x86-64-v3", "x86-64-v4"}
_OLD = {
    "athlon",
    "Conroe",
    "core2duo",
    "coreduo",
    "Nehalem",
    "Nehalem-IBRS",
    "Penryn",
    "pentium2",
    "pentium3",
    "phenom",
}
LACKING = {"pclmulqdq": TOO_OLD | _LEVELS | _OLD | {"Opteron_G1", "Opteron_G2", "Opteron_G3"}}
"""The types that lack a feature, by its name in /proc/cpuinfo. Proxmox VE's levels lack PCLMULQDQ and cannot have it
added; a custom model (custom-…) can have it."""


def lacks(cpu: str, feature: str) -> bool:
    """Whether a CPU type is known to lack a feature, whatever the host has."""
    return cpu in LACKING[feature]
