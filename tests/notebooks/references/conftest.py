"""What `pytest --nbval-lax tests/notebooks/references` runs against: one lab, approved for the lab alone."""

from __future__ import annotations

import os
import tempfile
from itertools import count
from pathlib import Path

import nbval.kernel
import pytest
from fluobook_lab import life
from jupyter_client.manager import KernelManager

from fluobook import params
from fluobook.lab import programs as lab_programs

ROOT = Path(__file__).parents[3]


def pytest_configure(config: pytest.Config) -> None:
    """Start the lab before nbval starts a kernel; kernels find it in their environment.

    Kernels have sockets in a folder: a port that is free now may be taken before a kernel binds it.
    """
    if not getattr(config.option, "nbval_lax", False) and not getattr(config.option, "nbval", False):
        return
    folder = Path(tempfile.mkdtemp(prefix="fluobook-nbval-"))
    lab = life.start(
        params.load("phase1", root=ROOT), folder, root=ROOT, programs=lab_programs(), owner=os.getpid(), seed=1
    )
    config.add_cleanup(lambda: life.end(lab, forget=True))
    number = count()
    nbval.kernel.KernelManager = lambda **options: KernelManager(
        transport="ipc", ip=str(folder / f"kernel-{next(number)}"), **options
    )
    os.environ |= {"FLUOBOOK_LAB": str(folder), "FLUOBOOK_APPROVE": "all", "FLUOBOOK_RENDER": "final"}
