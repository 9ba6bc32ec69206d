import subprocess

import pytest

from fluobook.clients import git
from fluobook.errors import NotFound, Unreachable


@pytest.fixture
def clone(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    folder = tmp_path / "clone"
    folder.mkdir()
    run = lambda *words: subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)  # noqa: E731
    run("init", "-q", "-b", "main")
    (folder / "a.yaml").write_text("a: 1\n")
    (folder / ".gitignore").write_text("keys.txt\n")
    (folder / "keys.txt").write_text("secret\n")
    run("add", ".")
    run("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "one")
    run("tag", "v1")
    return folder


def test_a_branch_and_a_tag_resolve_to_the_commit(clone):
    sha = git.ls_remote(str(clone))
    assert len(sha) == 40
    assert git.ls_remote(str(clone), "main") == git.ls_remote(str(clone), "v1") == sha
    assert git.ls_remote("https://nowhere.invalid/x.git", sha) == sha


def test_an_unknown_branch_names_those_that_exist(clone):
    with pytest.raises(NotFound, match="no branch or tag 'mian'") as caught:
        git.ls_remote(str(clone), "mian")
    assert "main" in caught.value.cause


def test_a_missing_repository_and_a_server_without_an_answer_have_different_errors(tmp_path):
    with pytest.raises(NotFound, match="there is no git repository"):
        git.ls_remote(str(tmp_path / "none.git"))
    with pytest.raises(Unreachable, match="does not answer"):
        git.ls_remote("http://127.0.0.1:1/x.git")


def test_tracked_files_are_listed(clone):
    assert git.root(clone) == clone
    assert git.tracked(clone) == [clone / ".gitignore", clone / "a.yaml"]
    assert git.tracked(clone, ["*.yaml"]) == [clone / "a.yaml"]


def test_outside_of_a_working_tree_there_is_no_root(tmp_path):
    with pytest.raises(NotFound, match="not in a git repository"):
        git.root(tmp_path)


def test_a_list_of_branches_is_read_with_peeled_tags():
    lines = [f"{'1' * 40} HEAD\0symref=HEAD:refs/heads/main\n", f"{'2' * 40} refs/tags/v1\n"]
    lines.append(f"{'3' * 40} refs/tags/v1^{{}}\n")
    packets = "".join(f"{len(line) + 4:04x}{line}" for line in lines)
    refs = git.parse_advertisement(f"001e# service=git-upload-pack\n0000{packets}0000".encode())
    assert refs == {"HEAD": "1" * 40, "refs/tags/v1": "2" * 40, "refs/tags/v1^{}": "3" * 40}


@pytest.mark.parametrize("line", ["# service=git-receive-pack", "version 2", "zz refs/heads/main", "fetch=shallow"])
def test_a_list_with_lines_that_name_no_commit_is_not_read_as_an_empty_repository(line):
    with pytest.raises(ValueError, match="names no commit"):
        git.parse_advertisement(f"001e# service=git-upload-pack\n0000{len(line) + 5:04x}{line}\n0000".encode())


def test_a_repository_without_branches_has_none():
    empty = f"{'0' * 40} capabilities^{{}}\0agent=git/2\n"
    packets = f"{len(empty) + 4:04x}{empty}"
    assert git.parse_advertisement(f"001e# service=git-upload-pack\n0000{packets}0000".encode()) == {}
