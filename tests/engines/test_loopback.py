"""Nothing of the control plane listens outside loopback, and nothing of it is left when its lab has ended.

The same of a whole platform, Argo CD included, is in `test_platform` and `test_held`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engines.running import LOOPBACK, family, listening, lives
from tests.engines.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engines.conftest import RealLab


@pytest.fixture(scope="module")
def lab(real_labs: Callable[[], RealLab]) -> RealLab:
    lab = real_labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes")
    return lab


def test_programs_listen_on_loopback_alone(lab: RealLab) -> None:
    programs = family(lab.lab.pid)
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in programs}
    assert {"etcd", "kube-apiserver", "kwok"} <= names
    heard = [address for pid in programs for address in listening(pid)]
    assert heard
    assert [address for address in heard if address not in LOOPBACK] == []


def test_a_lab_that_is_ended_leaves_no_program_behind(lab: RealLab) -> None:
    programs = family(lab.lab.pid)
    lab.end()
    assert [pid for pid in programs if lives(pid)] == []


def test_a_lab_that_is_killed_leaves_no_program_behind(real_labs: Callable[[], RealLab]) -> None:
    lab = real_labs()
    lab.bring_up("create-vms", "apply-talos-config", "bootstrap-kubernetes")
    programs = family(lab.lab.pid)
    os.kill(lab.lab.pid, 9)
    until(lambda: [pid for pid in programs if lives(pid)], lambda left: not left, seconds=30)
