"""CPU types of Proxmox VE and the CPU features that they lack."""

from __future__ import annotations

MODELS = frozenset(
    """
    486 athlon Broadwell Broadwell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS Cascadelake-Server
    Cascadelake-Server-noTSX Cascadelake-Server-v2 Cascadelake-Server-v4 Cascadelake-Server-v5 Conroe Cooperlake
    Cooperlake-v2 core2duo coreduo EPYC EPYC-Genoa EPYC-IBPB EPYC-Milan EPYC-Milan-v2 EPYC-Rome EPYC-Rome-v2
    EPYC-Rome-v3 EPYC-Rome-v4 EPYC-v3 EPYC-v4 GraniteRapids Haswell Haswell-IBRS Haswell-noTSX Haswell-noTSX-IBRS
    host Icelake-Client Icelake-Client-noTSX Icelake-Server Icelake-Server-noTSX Icelake-Server-v3 Icelake-Server-v4
    Icelake-Server-v5 Icelake-Server-v6 IvyBridge IvyBridge-IBRS KnightsMill kvm32 kvm64 max Nehalem Nehalem-IBRS
    Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5 Penryn pentium pentium2 pentium3 phenom qemu32 qemu64
    SandyBridge SandyBridge-IBRS SapphireRapids SapphireRapids-v2 SierraForest Skylake-Client Skylake-Client-IBRS
    Skylake-Client-noTSX-IBRS Skylake-Client-v4 Skylake-Server Skylake-Server-IBRS Skylake-Server-noTSX-IBRS
    Skylake-Server-v4 Skylake-Server-v5 Westmere Westmere-IBRS x86-64-v2 x86-64-v2-AES x86-64-v3 x86-64-v4
    """.split()  # noqa: SIM905 (a list would fill 70 lines)
)
"""The models that Proxmox VE accepts for x86; an administrator's own have the prefix custom-."""
HOST = frozenset({"host", "max"})
"""Types that pass on what the host's own CPU has."""
_WITHOUT_SSE_4_2 = "athlon Conroe core2duo coreduo Opteron_G1 Opteron_G2 Opteron_G3 Penryn pentium2 pentium3 phenom"
TOO_OLD = frozenset({"kvm64", "qemu64", "kvm32", "qemu32", "486", "pentium", "x86-64-v1", *_WITHOUT_SSE_4_2.split()})
"""Types without x86-64-v2, with which Talos halts at boot."""

_LEVELS = {"x86-64-v2", "x86-64-v2-AES", "x86-64-v3", "x86-64-v4"}
LACKING = {"pclmulqdq": TOO_OLD | _LEVELS | {"Nehalem", "Nehalem-IBRS"}}
"""The types that lack a feature, by its name in /proc/cpuinfo. Proxmox VE's levels lack PCLMULQDQ and cannot have it
added; a custom model (custom-…) can have it."""


def lacks(cpu: str, feature: str) -> bool:
    """Whether a CPU type is known to lack a feature, whatever the host has."""
    return cpu in LACKING[feature]
