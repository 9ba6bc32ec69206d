import asyncio
import subprocess
from pathlib import Path

import pytest
from fluobook_lab.clock import Clock
from fluobook_lab.git_server import GitServer

from fluobook.clients import git as git_client
from fluobook.clients import tools

pytestmark = pytest.mark.lab


@pytest.fixture
def tree(tmp_path) -> Path:
    tree = tmp_path / "tree"
    (tree / "cluster-gitops").mkdir(parents=True)
    (tree / "cluster-gitops" / "a.yaml").write_text("a: 1\n")
    (tree / ".sops.yaml").write_text("creation_rules: []\n")
    (tree / "secret.txt").write_text("not for git\n")
    return tree


def server(folder: Path) -> GitServer:
    return GitServer(folder, Clock(), git=tools.find("git").path)


async def run(*command: str, cwd: Path | None = None) -> str:
    env = {"GIT_CONFIG_GLOBAL": "/dev/null", "HOME": "/nowhere", "PATH": "/usr/bin:/bin"}
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = await asyncio.to_thread(
        subprocess.run,
        ["git", *identity, *command],
        cwd=cwd,
        env=env,
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.stdout.strip()


async def _clones_and_pushes(tmp_path: Path, tree: Path) -> None:
    host = server(tmp_path / "repositories")
    sha = host.seed("fluobook", tree, ["cluster-gitops", ".sops.yaml", "missing"])
    await host.start()
    try:
        clone = tmp_path / "clone"
        await run("clone", "-q", host.url("fluobook"), str(clone))
        assert await run("rev-parse", "HEAD", cwd=clone) == sha
        assert (await run("ls-files", cwd=clone)).split() == [".sops.yaml", "cluster-gitops/a.yaml"]
        (clone / "b.yaml").write_text("b: 2\n")
        await run("add", ".", cwd=clone)
        await run("commit", "-qm", "two", cwd=clone)
        assert not any(request.mutating for request in host.requests)
        await run("push", "-q", "origin", "main", cwd=clone)
        assert host.head("fluobook") == await run("rev-parse", "HEAD", cwd=clone)
        assert any(request.mutating for request in host.requests)
        changed = host.commit("fluobook", {"c.yaml": "c: 3\n", "b.yaml": None})
        refs = await asyncio.to_thread(git_client.ls_remote, host.url("fluobook"), "main")
        assert refs == changed
        await run("pull", "-q", cwd=clone)
        assert (clone / "c.yaml").exists()
        assert not (clone / "b.yaml").exists()
    finally:
        await host.stop()


def test_a_real_git_clones_and_pushes(tmp_path, tree):
    asyncio.run(_clones_and_pushes(tmp_path, tree))


def test_the_same_tree_makes_the_same_commit(tmp_path, tree):
    first = server(tmp_path / "one").seed("fluobook", tree, ["cluster-gitops"])
    second = server(tmp_path / "two").seed("other", tree, ["cluster-gitops"])
    assert first == second


def test_ignored_files_are_not_committed(tmp_path, tree):
    (tree / ".gitignore").write_text("secret.txt\n")
    host = server(tmp_path / "repositories")
    host.seed("fluobook", tree)
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "main"],
        cwd=host.root / "fluobook.git",
        check=True,
        capture_output=True,
        text=True,
    )
    assert listed.stdout.split() == [".gitignore", ".sops.yaml", "cluster-gitops/a.yaml"]


def test_a_copied_repository_has_the_pinned_revision_and_not_the_configuration(tmp_path, tree):
    source = tmp_path / "source"
    sha = server(source).seed("real", tree, ["cluster-gitops"], tags=["v1"])
    folder = source / "real.git"
    asyncio.run(run("config", "remote.evil.url", "https://evil.example.org", cwd=folder))
    host = server(tmp_path / "served")
    for revision in ("v1", "stable"):
        host.copy("git.example.org/real", folder, revision, sha)
    served = host.root / "git.example.org" / "real.git"
    for revision in ("v1", "stable", sha):
        assert asyncio.run(run("rev-parse", f"{revision}^{{commit}}", cwd=served)) == sha
    assert "evil" not in (served / "config").read_text()
