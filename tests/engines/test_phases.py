"""Every notebook of a phase on the real engine: they pass, verify what they do on the embedded one, and change nothing
when run again.

Phase 1, on which much else is tried, is in `test_platform`, which `make test` runs; tests/notebooks has all phases on
the embedded engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fluobook.stages.catalogue import STAGES
from tests.engines.outcomes import of_run, verified

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engines.conftest import RealLab

BRING_UP = tuple(stage.name for stage in STAGES)


@pytest.mark.long
@pytest.mark.parametrize("phase", ["phase2", "phase3"])
def test_a_phase_s_notebooks_verify_the_same_on_both_engines(
    phase: str, real_labs: Callable[..., RealLab], tmp_path: Path
) -> None:
    lab = real_labs(phase)
    versions = {"kubernetes": lab.context.platform.versions.kubernetes}  # the patch that the real engine has
    played = real_labs(phase, engine="embedded", versions=versions)
    played.bring_up(*BRING_UP)
    played.end()
    lab.notebooks(tmp_path / "run")
    results = of_run(tmp_path / "run")
    assert tuple(results) == BRING_UP
    assert results == verified(played.context.journal.events)
    before = lab.mutating()
    lab.bring_up(*BRING_UP)
    assert lab.mutating() == before
    lab.end()
