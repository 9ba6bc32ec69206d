from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fluobook import errors
from fluobook.errors import (
    KUBECTL,
    PHASE,
    TALOSCTL,
    CheckFailed,
    Conflict,
    DeadlineExceeded,
    FluobookError,
    NotFound,
    OutsideError,
    ParamsError,
    Refused,
    TaskFailed,
    in_commands,
)
from fluobook.failures import entry, present

BOOTSTRAPPED = Conflict(
    "talos at 10.10.0.10:50000 refused Bootstrap",
    system="talos",
    code="ALREADY_EXISTS",
    detail="etcd data directory is not empty",
    facts={"address": "10.10.0.10"},
)


def test_a_known_error_shows_code_causes_remedy_next_command_and_answer() -> None:
    assert present(BOOTSTRAPPED, phase="phase1").text().splitlines() == [
        "talos at 10.10.0.10:50000 refused Bootstrap",
        "  failure: F28 etcd was bootstrapped before",
        "  cause:   This node has etcd data, which is expected after the first bootstrap.",
        f"  remedy:  {entry('F28').remedy}",
        "  next:    fluobook talosctl phase1 -- etcd members --nodes 10.10.0.10",
        "  talos answered:",
        "    etcd data directory is not empty",
    ]


def test_the_table_has_the_same_rows_as_the_text() -> None:
    rows = present(BOOTSTRAPPED, phase="phase1").table()
    assert [label for label, _ in rows] == ["failure", "cause", "remedy", "next", "talos answered"]
    assert all(text in present(BOOTSTRAPPED, phase="phase1").text() for _, text in rows)


def test_the_catalogues_remedy_names_the_platform() -> None:
    shown = present(FluobookError("etcdserver: leader changed"), phase="phase1")
    assert shown.failure.startswith("F34")
    assert "fluobook run phase1 restore" in shown.remedy


def test_a_command_that_the_errors_own_remedy_names_is_shown_once() -> None:
    first = present(BOOTSTRAPPED, phase="phase1")
    again = CheckFailed("a check failed", remedy=first.advice)
    again.__cause__ = BOOTSTRAPPED
    shown = present(again, phase="phase1")
    assert (shown.failure, shown.causes) == (first.failure, first.causes)
    assert shown.text().count(first.next) == 1


def test_the_errors_own_cause_and_remedy_come_first() -> None:
    error = NotFound("no chart x", system="helm", code="1", cause="it has: a, b", remedy="use a")
    shown = present(error)
    assert shown.causes[0] == "it has: a, b"
    assert len(shown.causes) > 1
    assert (shown.remedy, shown.failure[:3]) == ("use a", "F98")


def test_several_causes_are_listed_in_order() -> None:
    shown = present(OutsideError("no", system="proxmox", code="401"))
    assert shown.causes[0].startswith("The token's id or secret")
    assert len(shown.causes) == 3


def test_other_matching_entries_are_named() -> None:
    error = OutsideError("no", system="proxmox", code="500", detail="VM is locked (backup)")
    assert present(error).alternatives == ("F08 Proxmox VE did not answer for a moment",)
    assert "or:      F08 Proxmox VE did not answer for a moment (fluobook explain F08)" in present(error).text()


def test_an_unknown_error_shows_only_what_it_says_itself() -> None:
    assert present(FluobookError("no")).text() == "no"
    assert present(FluobookError("no", remedy="run it again")).text() == "no\n  remedy:  run it again"
    shrinks = Refused("it would lose data", cause="the disk shrinks", remedy="set 80 or more")
    assert present(shrinks).text() == "it would lose data\n  cause:   the disk shrinks\n  remedy:  set 80 or more"


def test_the_commands_of_an_entry_name_the_phase_if_it_is_known() -> None:
    error = OutsideError("no", system="proxmox", code="500")
    assert present(error).next == ""
    assert present(error, phase="phase2").next == "fluobook plan phase2"


def test_commands_name_the_target_of_a_live_platform_and_never_another_cluster() -> None:
    live = in_commands("phase2", "live")
    error = OutsideError("no", system="proxmox", code="500")
    assert present(error, phase=live).next == "fluobook plan phase2 --target live"
    own = FluobookError(
        f"no; {TALOSCTL} version", cause=f"{KUBECTL} get pods", remedy=f"fluobook run {PHASE} --only csr"
    )
    assert present(own, phase=live).text().splitlines() == [
        "no; fluobook talosctl phase2 --target live -- version",
        "  cause:   fluobook kubectl phase2 --target live -- get pods",
        "  remedy:  fluobook run phase2 --target live --only csr",
    ]
    assert present(own, phase=in_commands("phase2", "lab")).remedy == "fluobook run phase2 --only csr"
    assert present(own).remedy == "fluobook run <phase> --only csr"


BARE = re.compile(
    r"(?<!fluobook )\b(kubectl|talosctl|argocd|cilium) (-n|get|describe|delete|logs|wait|explain|reset|admin)"
)


@pytest.mark.parametrize("package", ["stages", "gitops", "clients", "machine", "cli", "run"])
def test_no_text_names_a_command_that_could_act_on_another_cluster(package: str) -> None:
    texts = [
        (file.name, node.value)
        for file in (Path(errors.__file__).parent / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [text for text in texts if BARE.search(text[1])] == []


def test_wrong_params_list_every_problem() -> None:
    shown = present(ParamsError("two problems", problems=("a: wrong", "b: wrong"))).text()
    assert shown.splitlines()[1:] == ["  - a: wrong", "  - b: wrong"]


def test_the_answer_of_a_system_is_found_in_the_chain_of_causes_and_shortened() -> None:
    log = "\n".join(f"line {number}" for number in range(100))
    with pytest.raises(DeadlineExceeded) as late:
        raise DeadlineExceeded("timed out") from TaskFailed("failed", system="proxmox", detail=log)
    assert present(late.value).answer == tuple(f"line {number}" for number in range(80, 100))


def test_a_known_failure_in_the_last_state_of_what_was_waited_for_is_named() -> None:
    state = "ScyllaCluster fluodata: not available; fluodata-dc1-rack1-0: CrashLoopBackOff: exit code 71: back-off"
    shown = present(DeadlineExceeded("timed out waiting for Application scylladb", cause=state))
    assert shown.failure == "F131 ScyllaDB does not start on this CPU"
    assert shown.causes[0] == state
    assert present(DeadlineExceeded("timed out", cause="nothing answers")).failure == ""


def test_a_control_character_of_a_server_is_shown_as_its_escape() -> None:
    shown = present(
        OutsideError(
            "cannot list: \x1b[2Jx", system="kubernetes", code="AlreadyExists", detail="a\x9bb\x07", remedy="\x1bc"
        )
    ).text()
    assert "\\x1b[2Jx" in shown
    assert "a\\x9bb\\x07" in shown
    assert "\\x1bc" in shown
    facts = {"repository": "https://x.example/\x1b[2J"}
    shown += present(OutsideError("no", system="git", code="401", facts=facts)).text()
    shown += present(ParamsError("no", problems=("a\x1b[2J: wrong",))).text()
    assert shown.count("\\x1b[2J") == 3
    assert all(char.isprintable() or char == "\n" for char in shown)
