"""All stages, headless, in the other two phases and where no certificate is issued; phase 1 is what nbval runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fluobook.params import repository_root
from fluobook.stages.catalogue import STAGES

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

FLUOBOOK = Path(sys.executable).with_name("fluobook")


@pytest.mark.parametrize("phase", ["phase2", "phase3"])
def test_a_phase_comes_up_from_nothing_by_its_notebooks(phase: str, tmp_path: Path) -> None:
    command = [str(FLUOBOOK), "run", phase, "--approve", "all", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=repository_root(), capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [stage["status"] for stage in summary["stages"]] == ["done"] * len(STAGES)
    assert (tmp_path / "run" / "report.html").exists()


def test_a_site_comes_up_with_files_of_its_own_alone(tmp_path: Path) -> None:
    """Two hosts, one control plane, VLAN, DHCP, ZFS, two replicas, no ScyllaDB, an application of its own."""
    root, repository = tmp_path / "repository", repository_root()
    for name in ("cluster-gitops", "params", "talos", "notebooks"):
        shutil.copytree(repository / name, root / name)
    shutil.copy(repository / ".sops.yaml", root)
    shutil.copytree(repository / "tests" / "site", root / "site")
    command = [str(FLUOBOOK), "run", "mine", "--approve", "all", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    actions = {event["action"] for event in events if event["event"] == "outcome"}
    assert "await shop" in actions
    assert not [action for action in actions if "scylla" in action]


@pytest.mark.parametrize(
    "path",
    ["cluster-gitops/bootstrap-gateway", pytest.param("cluster-gitops/bootstrap", marks=pytest.mark.long)],
)
def test_a_platform_comes_up_where_no_certificate_is_issued_and_names_what_waits(path: str, tmp_path: Path) -> None:
    command = [str(FLUOBOOK), "run", "phase1", "--approve", "all", "--out", str(tmp_path / "run")]
    command += ["--fault", "kube.issuer-unreachable", "--set", f"platform.gitops.path={path}"]
    done = subprocess.run(command, cwd=repository_root(), capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    verified = {event["stage"]: event["checks"] for event in events if event["event"] == "verified"}
    issued, received = "certificates are issued", "alerts reach somebody"
    for stage, expected in (("root-application", [issued]), ("observe", [issued, received])):
        failed = [check for check in verified[stage] if not check["passed"]]
        assert [check["check"] for check in failed] == expected
        assert "ClusterIssuer letsencrypt-production: Failed to register ACME account" in failed[0]["result"]
        assert "argocd-tls: Issuing certificate" in failed[0]["result"]
