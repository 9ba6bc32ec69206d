"""Which tracked files hold credentials in plaintext."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from fluobook.clients import git
from fluobook.stages.preflight.checks import plaintext_secrets

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "name",
    [
        "kubeconfig",
        "context/kubeconfig.yaml",
        "talosconfig",
        "age.key",
        "keys.txt",
        "context/mine.age",
        "terraform.tfstate",
        "terraform.tfstate.backup",
        "infra/terraform.tfvars",
        "talos/secrets.yaml",
        ".env",
    ],
)
def test_files_that_hold_credentials_are_named(name):
    assert plaintext_secrets([PurePosixPath(name)]) == [name]


@pytest.mark.parametrize(
    "name",
    [
        "params/lab/lab.age",
        "infra/terraform.tfvars.example",
        "talos/secrets/fluodata.sops.yaml",
        "fluobook/machine/kubeconfig.py",
        "docs/talosconfig.md",
        "talos/patches/controlplane.yaml",
    ],
)
def test_files_that_only_sound_alike_are_not(name):
    assert plaintext_secrets([PurePosixPath(name)]) == []


def test_this_repository_tracks_none():
    assert plaintext_secrets(path.relative_to(ROOT) for path in git.tracked(ROOT)) == []
