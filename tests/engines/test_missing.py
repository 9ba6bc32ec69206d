"""What the real engine needs and does not find: named before anything is begun, with what helps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fluobook_lab.engines import programs as engines

from fluobook.errors import ToolFailed

ROOT = Path(__file__).parents[2]
FLUOBOOK = Path(sys.executable).with_name("fluobook")
NO_NETWORKS = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"'


def test_programs_that_are_not_there_are_named_with_what_builds_them(tmp_path: Path) -> None:
    around = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "FLUOBOOK_CACHE": str(tmp_path / "cache")}
    command = [str(FLUOBOOK), "run", "phase1", "--engine", "real", "--approve", "all", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 1
    assert "kube-apiserver" in done.stderr
    assert "make engines" in done.stderr


def test_a_missing_redis_is_named_with_the_package_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("FLUOBOOK_CACHE", str(tmp_path))
    with pytest.raises(ToolFailed, match="redis-server") as raised:
        engines.programs(ROOT, needed=("redis",))
    assert "apt install redis-server" in raised.value.remedy


@pytest.mark.usefixtures("programs")
def test_a_system_that_refuses_network_namespaces_is_named(tmp_path: Path) -> None:
    command = [
        "unshare",
        "-Ur",
        "sh",
        "-c",
        NO_NETWORKS,
        "sh",
        str(FLUOBOOK),
        "lab",
        "up",
        "phase1",
        "--engine",
        "real",
    ]
    around = {**os.environ, "FLUOBOOK_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 1
    assert "the real engine needs a network namespace" in done.stderr
    assert "max_net_namespaces" in done.stderr
    assert not (tmp_path / "lab").exists()
