"""Files that no reader survives are findings of `fluobook check`, and errors of one line elsewhere; nothing hangs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fluobook import cli, params
from fluobook.errors import ParamsError
from fluobook.files import pattern
from fluobook.gitops.check import RULES, findings
from fluobook.machine.secrets import SecretsBundle

ROOT = Path(__file__).resolve().parents[2]
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{above}'] * 9)}]\n" for above, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MAKE = {
    "an alias bomb": lambda path: path.write_text(BOMB),
    "deep nesting": lambda path: path.write_text("a: " + "[" * 50_000),
    "10 MB": lambda path: path.write_text("# a comment\n" * 900_000),
    "a FIFO": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to("nowhere.yaml"),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: (path / "below").mkdir(parents=True),
    "a binary file": lambda path: path.write_bytes(bytes(range(256))),
    "a merge conflict": lambda path: path.write_text("<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> theirs\n"),
    "an impossible date": lambda path: path.write_text("platform: {cluster: 2026-13-45}\n"),
    "a key twice": lambda path: path.write_text("a: 1\nb: 2\na: 3\n"),
    "a number too long": lambda path: path.write_text("phase: " + "9" * 5000),
    "a list": lambda path: path.write_text("- a\n"),
    "nothing": lambda path: path.write_text(""),
}
READABLE = {"an impossible date", "a number too long", "a list", "nothing", "a folder"}
"""What YAML can be, or what is no file of the tree."""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for part in ("params", "talos", "cluster-gitops"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / ".sops.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replaced(path, name):
    path.unlink(missing_ok=True)
    MAKE[name](path)


@pytest.mark.parametrize("name", sorted(MAKE.keys() - READABLE))
@pytest.mark.parametrize(
    "file",
    [
        ".sops.yaml",
        "params/phase1.yaml",
        "talos/patches/1.14/common.yaml",
        "talos/schematic.yaml",
        "cluster-gitops/new.yaml",
    ],
)
def test_a_file_that_cannot_be_read_is_a_finding(repository, capsys, file, name):
    replaced(repository / file, name)
    assert cli.run(["check"]) == 4
    output = capsys.readouterr()
    assert [line for line in output.out.splitlines() if line.startswith(file) and "[readable] it " in line]
    assert "Traceback" not in output.out + output.err
    assert all(len(line) < 400 for line in output.out.splitlines())


@pytest.mark.parametrize("name", ["a FIFO", "a link to itself"])
def test_a_special_file_of_any_name_is_a_finding(repository, name):
    replaced(repository / "cluster-gitops" / "apps" / "notes", name)
    assert [(f.rule, f.file) for f in findings(repository)] == [("readable", "cluster-gitops/apps/notes")]


def test_a_link_to_its_own_folder_is_left_out(repository):
    (repository / "cluster-gitops" / "apps" / "loop").symlink_to(".")
    assert findings(repository, {"build": RULES["build"]}) == []


def test_a_copy_without_room_names_the_folder_and_the_reason(repository, monkeypatch):
    def full(source, target, **_):
        raise shutil.Error([(str(source), str(target), "[Errno 28] No space left on device: 'x'")] * 500)

    monkeypatch.setattr(shutil, "copytree", full)
    [found] = findings(repository, {"build": RULES["build"]})
    assert found.file.endswith("/tree/cluster-gitops")
    assert (found.message, found.rule) == ("it cannot be written: No space left on device", "readable")


@pytest.mark.parametrize("name", sorted(MAKE))
def test_a_params_file_that_cannot_be_read_is_one_error(repository, name):
    replaced(repository / "params" / "site.yaml", name)
    with pytest.raises(ParamsError):
        params.load(repository / "params" / "site.yaml", root=repository)


@pytest.mark.parametrize("name", sorted(MAKE.keys() - {"nothing", "an impossible date", "a number too long", "a list"}))
@pytest.mark.parametrize("file", ["patches/1.14/common.yaml", "schematic.yaml"])
def test_a_talos_file_that_cannot_be_read_ends_render_with_one_error(repository, capsys, file, name):
    replaced(repository / "talos" / file, name)
    assert cli.run(["render", "phase1", "--target", "live", "--out", str(repository / "out")]) in (1, 64)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert file.rpartition("/")[2] in error or "schematic" in error or "machine configuration" in error


@pytest.mark.parametrize("name", sorted(MAKE))
def test_a_bundle_that_cannot_be_read_ends_render_with_one_error(repository, capsys, name):
    replaced(repository / "bundle.yaml", name)
    arguments = ["render", "phase1", "--target", "live", "--secrets", "bundle.yaml", "--out", str(repository / "out")]
    assert cli.run(arguments) in (1, 64)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("bundle", [None, [], 5, "text", {"certs": []}, {"certs": {"os": {"crt": 5}}}])
def test_a_bundle_of_another_shape_is_refused(bundle):
    with pytest.raises(ParamsError, match="bundle"):
        SecretsBundle.parse(bundle)


@pytest.mark.parametrize("name", sorted(MAKE.keys() - {"a list", "nothing"}))
def test_an_encrypted_file_that_cannot_be_read_is_a_finding(repository, name):
    replaced(repository / "cluster-gitops" / "apps" / "secrets" / "mail.sops.yaml", name)
    reported = findings(repository, RULES if name == "a key twice" else QUICK)
    assert [finding for finding in reported if finding.file.endswith("mail.sops.yaml")]


QUICK = {name: rule for name, rule in RULES.items() if name not in ("build", "reachability")}
CREATION_RULES = (
    "creation_rules:\n  - path_regex: '{}'\n    age: age1v0zc3r87s8g2dxuctjedrqgaa0rmljt5sxy99qh88dgtpdny4csqrajdr5\n"
)
SLOW = [
    "(a+)+$",
    "(a|a)*$",
    "(.*a){12}",
    "(a?){40}a{40}",
    "a?" * 30 + "a" * 30,
    ".*.*.*.*.*x",
    "((a*)*)*",
    "([a-z]+)*$",
    "(.|[a-z/.-])" * 25 + "!",
    "(?:a|(?:b|.))" * 20 + "!",
    "a|" + ".*" * 4,
    ".{0,300}" * 4 + "z",
]


@pytest.mark.parametrize("expression", SLOW)
def test_an_expression_that_could_take_for_ever_is_a_finding(repository, expression):
    (repository / ".sops.yaml").write_text(CREATION_RULES.format(expression))
    reported = findings(repository, RULES if expression == SLOW[0] else QUICK)
    messages = {finding.message for finding in reported if finding.file == ".sops.yaml"}
    assert "it has a regular expression that could take too long" in messages


@pytest.mark.parametrize("expression", ["(", "[a", "*", "a{2,1}", "(?P<x>a)(?P<x>b)", "(" * 5000 + ")" * 5000])
def test_an_invalid_expression_is_a_finding(repository, expression):
    (repository / ".sops.yaml").write_text(CREATION_RULES.format(expression))
    reported = findings(repository, QUICK)
    assert any("has an invalid regular expression" in finding.message for finding in reported)


@pytest.mark.parametrize(
    "expression",
    [
        r"^cluster-gitops/.*\.sops\.yaml$",
        r"(^|/)secrets/[^/]+\.ya?ml$",
        r"\.(yaml|json)$",
        r"cluster-gitops/[^/]+/[^/]+/secrets/.+",
        r"[(*+{]{3}a?b?",
    ],
)
def test_usual_expressions_are_accepted(expression):
    assert pattern(expression, ".sops.yaml").pattern == expression


@pytest.mark.parametrize(
    "rules", ["creation_rules: 5", "creation_rules: [1, 2]", "creation_rules: {a: 1}", "[]", "a: 1"]
)
def test_creation_rules_of_another_shape_are_a_finding(repository, rules):
    (repository / ".sops.yaml").write_text(rules + "\n")
    reported = findings(repository, QUICK)
    assert [finding for finding in reported if ".sops.yaml" in finding.file or "rule" in finding.message]
