"""Cilium's version stands in one file: change it there, and the inline manifest and the Application both follow."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fluobook_lab.charts import ChartServer
from fluobook_lab.clock import Clock

from fluobook import gitops, params
from fluobook.stages.apply_talos_config.documents import cilium_manifest, gather

ROOT = Path(__file__).parents[2]
FILE = "cluster-gitops/infrastructure/cilium/application.yaml"
OTHER = "1.19.6"
pytestmark = pytest.mark.lab


@pytest.fixture
def copy(tmp_path):
    for name in ("cluster-gitops", "params", "talos"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / ".sops.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def platform(background, copy):
    """The platform of the copy, whose charts come from a server that offers what the copy's Applications ask for."""
    server = ChartServer(copy / "cluster-gitops", clock=Clock())
    background.run(server.start())
    loaded = params.load("phase1", root=copy).platform
    yield params.overlay(loaded, {"gitops": {"mirrors": server.mirrors()}})
    background.run(server.stop())


def deployed(copy, platform):
    """Version and values as Argo CD is told."""
    source = gitops.chart_source(gitops.for_phase(platform, gitops.read(copy)), "cilium")
    return source.version, source.values


def test_one_file_names_the_version(copy):
    """metrics.yaml names the version that its metrics were read at: a record, which `fluobook check` compares."""
    version = gitops.read(copy).application("cilium").version
    files = [file for file in copy.rglob("*") if file.is_file() and file.name != "metrics.yaml"]
    naming = [file for file in files if version in file.read_text()]
    assert naming == [copy / FILE]


def test_manifest_and_application_change_together(copy, platform):
    before, old = deployed(copy, platform), cilium_manifest(platform, copy)
    digest = gather(platform, copy).digest()
    text = (copy / FILE).read_text()
    (copy / FILE).write_text(text.replace(f"targetRevision: {before[0]}", f"targetRevision: {OTHER}"))
    new = cilium_manifest(platform, copy)
    assert deployed(copy, platform) == (OTHER, before[1])
    assert before[0] in old
    assert OTHER not in old
    assert OTHER in new
    assert before[0] not in new
    assert gather(platform, copy).digest() != digest
