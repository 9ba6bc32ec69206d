"""The drills: for each failure that can be practised, the faults that lead to it and how its remedy is carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fluobook_lab.data import table


@dataclass(frozen=True)
class Drill:
    """A failure to practise.

    Args:
        stage: the stage at which a run stops.
        faults: the faults that lead to it; a mapping gives how often each happens.
        phase: the phase whose lab fails.
        settings: params of the drill itself, such as a short deadline.
        outside: the part of the remedy that is work outside the platform; "" if there is none.
        change: params that the remedy changes.
    """

    stage: str
    faults: Sequence[str] | Mapping[str, int]
    phase: str = "phase1"
    settings: Sequence[str] = ()
    outside: str = ""
    change: Sequence[str] = ()

    @property
    def injected(self) -> list[str]:
        """The names of the faults, each as often as it happens."""
        return list(Counter(self.faults).elements())


DRILLS: Mapping[str, Drill] = {code: Drill(**entry) for code, entry in table("drills.yaml").items()}
"""Every drill by the code of the failure in the catalogue."""
