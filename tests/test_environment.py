"""Child processes inherit the variables they need, and no secret."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from fluobook_lab import life

from fluobook import params
from fluobook.clients.tools import run_tool
from fluobook.environment import inherited
from fluobook.params.secrets import secret_variables
from fluobook.redact import Redactor
from fluobook.run import headless
from fluobook.run.kernels import kernel_template
from fluobook.waiting import Cancellation, wait_until

ROOT = Path(__file__).resolve().parents[1]
(TOKEN,) = secret_variables(params.load("phase1", root=ROOT).platform)


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    monkeypatch.setenv(TOKEN, "hunter2-hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("PATH", True),
        ("https_proxy", True),
        ("LC_ALL", True),
        ("SSH_AUTH_SOCK", True),
        ("FLUOBOOK_HOME", True),
        (TOKEN, False),
        ("AWS_SECRET_ACCESS_KEY", False),
        ("KUBECONFIG", False),
        ("SOPS_AGE_KEY", False),
    ],
)
def test_a_child_inherits_what_it_needs(name, kept):
    assert (name in inherited(environment={name: "value"})) is kept
    assert inherited([name], environment={name: "value"}) == {name: "value"}


def test_a_program_does_not_receive_the_token():
    output = run_tool("env", ["/usr/bin/env"], env={"GIVEN": "yes", "HOME": None}).stdout
    assert "GIVEN=yes" in output
    assert "PATH=" in output
    assert "HOME=" not in output.replace("_HOME=", "")
    assert "hunter2" not in output


def test_the_lab_does_not_receive_the_token(tmp_path, monkeypatch):
    environments = []

    class Started(Exception):
        """Ends the start."""

    def popen(_command, *, env, **_options):
        environments.append(env)
        raise Started

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(Started):
        life.start(params.load("phase1", root=ROOT), tmp_path / "lab", root=ROOT, programs={}, owner=None)
    assert environments
    assert TOKEN not in environments[0]


def test_the_process_that_forks_kernels_does_not_receive_the_token():
    with kernel_template() as template:
        environ = Path(f"/proc/{template._process.pid}/environ")  # empty until the program has begun
        variables = wait_until(
            lambda: environ.read_bytes() or None, what="the process to begin", timeout=20, cancellation=Cancellation()
        )
        assert b"PATH=" in variables
        assert b"hunter2" not in variables


def test_only_the_kernels_of_a_live_run_receive_the_token(tmp_path):
    for variables, expected in ((), None), ([TOKEN], "hunter2-hunter2"):
        request = headless.RunRequest("phase1", {}, "lab", "", (), ROOT, tmp_path, None, variables, Redactor())
        with headless._environment(request):
            assert os.environ.get(TOKEN) == expected
            assert "AWS_SECRET_ACCESS_KEY" not in os.environ
            assert os.environ["FLUOBOOK_RUN"] == str(tmp_path)
    assert os.environ[TOKEN] == "hunter2-hunter2"
