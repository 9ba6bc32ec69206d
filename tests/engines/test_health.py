"""The tree's health check for Applications, run by Argo CD itself and by the lab: the same result."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from fluobook_lab.argocd.health import HealthChecks

from fluobook.kubernetes.health_scripts import ScriptError
from tests.engines.health_cases import CASES, KEY, Case, script

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES = (
    *("string", "math", "io", "debug", "coroutine", "table", "os", "os.time", "os.date", "require", "('x'):len()"),
    *(f"require('os').{name}" for name in ("time", "date", "clock", "getenv")),
)
KNOWN = "return {{status = type({name}) == 'nil' and 'Missing' or 'Healthy', message = ''}}"
"""Answers Missing for what is not there, and breaks where not even its library is."""

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@by_name
def test_the_lab_assesses_the_health_of_applications_correctly(case: Case) -> None:
    assert played(script(), case) == case.verdict


@by_name
def test_argo_cd_itself_comes_to_the_same_result(case: Case, argocd: str, tmp_path: Path) -> None:
    assert judged(script(), case, argocd, tmp_path) == case.verdict


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_script_finds_the_same_libraries_in_both(name: str, argocd: str, tmp_path: Path) -> None:
    asking, case = KNOWN.format(name=name), CASES[0]
    assert played(asking, case) == judged(asking, case, argocd, tmp_path)


def played(check: str, case: Case) -> str:
    try:
        health = HealthChecks({"argoproj.io_Application": check}).scripted(case.application())
    except ScriptError:
        return "error"
    return health.status if health else "none"


def judged(check: str, case: Case, argocd: str, folder: Path) -> str:
    """What Argo CD says, asked without a cluster."""
    name = {"namespace": "argocd", "labels": {"app.kubernetes.io/part-of": "argocd"}}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", **name}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "argocd-secret", **name}}
    files = {"app": case.application(), "argocd-cm": {**settings, "data": {KEY: check}}, "argocd-secret": secret}
    paths = {name: folder / f"{name}.yaml" for name in files}
    for name, content in files.items():
        paths[name].write_text(yaml.safe_dump(content))
    command = [argocd, "admin", "settings", "resource-overrides", "health", str(paths["app"])]
    command += ["--argocd-cm-path", str(paths["argocd-cm"]), "--argocd-secret-path", str(paths["argocd-secret"])]
    around = {"ARGOCD_BINARY_NAME": "argocd", "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=around, timeout=200, check=False)
    match = re.search(r"^STATUS: (\S+)", done.stdout, re.MULTILINE)
    return match[1] if match else "error" if done.returncode else "none"
