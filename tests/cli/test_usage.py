"""A wrong command line: exit code 64, the usage, and no stack of frames."""

from __future__ import annotations

import pytest

from fluobook import cli


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nonsense"], "No such command"),
        (["plan"], "PHASE"),
        (["plan", "phase1", "--nonsense"], "No such option"),
        (["lab", "up", "--speed", "fast"], "--speed"),
        (["plan", "phase9"], "there is no params/phase9.yaml"),
    ],
)
def test_a_wrong_command_line_is_told_with_exit_code_64(arguments, told, capsys):
    assert cli.run(arguments) == 64
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said


COMMANDS = [command.callback.__name__ for command in cli.app.registered_commands]


def test_help_lists_every_command(capsys):
    assert cli.run(["--help"]) == 0
    listed = capsys.readouterr().out
    assert {"run", "plan", "render", "check", "doctor", "kubeconfig", "report", "tools", "version"} <= set(COMMANDS)
    assert all(f"  {command} " in listed for command in [*COMMANDS, "lab"])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command, capsys):
    assert cli.run([command, "--help"]) == 0
    assert "Example:" in capsys.readouterr().out
