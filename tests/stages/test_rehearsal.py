"""A rehearsal like live: a first lab stands for the live platform; a second one stops where that would stop."""

from __future__ import annotations

import fcntl
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fluobook import cli, params
from fluobook.context import POLICIES
from fluobook.errors import DeadlineExceeded, FluobookError
from fluobook.journal.journal import altered
from fluobook.notebook import for_approval
from fluobook.params.reading import merged
from fluobook.stages import upgrade_talos
from tests.stages.test_likeness import ALL, disturb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fluobook.stages.core.plan import Plan

pytestmark = pytest.mark.lab

NOW = params.pins(params.repository_root())["talos"]
NEW = ".".join([*NOW.split(".")[:2], str(int(NOW.split(".")[2]) + 1)])
TO = (f"platform.versions.talos={NEW}",)
SET = ("--set", *TO)


@pytest.fixture(scope="module")
def live(shared_labs: Callable[..., Any]) -> Any:
    lab = shared_labs()
    lab.bring_up(*ALL)
    return lab


@pytest.fixture
def rehearse(
    live: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Callable[..., tuple[int, str, Path]]:
    """Runs `fluobook rehearse` with the first lab as the live platform: its exit code, what it printed, the folder."""
    # The keys of a lab are public, and the first lab has them.
    monkeypatch.setitem(POLICIES, "live", replace(POLICIES["live"], refuses_lab_key=False))
    overlay = json.loads((live.folder / "lab.json").read_text())["overlay"]
    path = tmp_path / "likelive.yaml"
    path.write_text(yaml.safe_dump({"phase": "likelive", "platform": merged(live.chosen.platform.written, overlay)}))

    def run(*arguments: str) -> tuple[int, str, Path]:
        live.mark()
        folder = tmp_path / "runs" / "20260101T000000Z-likelive"
        code = cli.run(["rehearse", str(path), *arguments, "--out", str(folder)])
        captured = capsys.readouterr()
        assert live.requests(mutating=True) == []
        return code, captured.out + captured.err, folder

    return run


def planned(live: Any, folder: Path) -> tuple[Plan, str]:
    """The plan on the first lab, and what its gate would show of the rehearsals beside that folder."""
    context = live.context(*TO)
    plan = upgrade_talos.STAGE.plan(context.platform, upgrade_talos.STAGE.observe(context))
    context.root, context.target = folder.parents[1], "live"
    return plan, for_approval(plan, context).notes[-1]


def test_what_passes_in_the_lab_is_known_at_the_gate(live: Any, rehearse: Callable[..., Any]) -> None:
    code, text, folder = rehearse("upgrade-talos")
    assert (code, folder.exists()) == (0, False)
    assert "nothing to rehearse" in text
    code, text, folder = rehearse("upgrade-talos", *SET)
    assert code == 0, text
    plan, note = planned(live, folder)
    assert f"the plan in the lab is the live one, {plan.digest}" in text
    assert re.fullmatch(r"rehearsed \d+ (seconds|minutes) ago in the lab, passed, \d+ s", note)
    assert altered(folder) == []
    assert f"plan {plan.digest} of upgrade-talos" in (folder / "report.html").read_text()


def test_access_files_that_this_machine_lacks_are_missing_in_the_lab_too(rehearse: Callable[..., Any]) -> None:
    code, text, folder = rehearse("certificates")
    assert code == 0, text
    assert "the plan in the lab is the live one" in text
    assert folder.exists()


def test_the_lab_that_is_up_may_stand_for_the_platform_and_is_no_evidence_at_its_gate(
    live: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("FLUOBOOK_HOME", str(tmp_path))
    arguments = ["rehearse", "phase1", "etcd-snapshot", "--like", "lab", "--out", str(tmp_path / "runs" / "run")]
    assert cli.run(arguments) == 1
    assert "no lab of phase1 is up" in capsys.readouterr().err
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "phase1").symlink_to(live.folder)
    live.mark()
    with (live.folder / "alive").open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)  # as the process of a lab that is kept
        assert cli.run(arguments) == 0
    assert live.requests(mutating=True) == []
    text = capsys.readouterr().out
    assert "reading fluodata, the lab of phase1; nothing is changed there" in text
    assert "LIVE" not in text
    (summary,) = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/summary.json")]
    assert summary["rehearses"]["cluster"] == "the lab of phase1"


def test_a_rehearsal_that_ends_before_its_notebook_leaves_no_folder(
    rehearse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise FluobookError("the laptop was closed")

    monkeypatch.setattr("fluobook.run.rehearsal.prepare", killed)
    code, text, folder = rehearse("certificates")
    assert (code, folder.exists()) == (1, False)
    assert "the laptop was closed" in text


def test_the_rehearsal_stops_where_the_live_run_would(live: Any, rehearse: Callable[..., Any]) -> None:
    """A replica has failed, a node is behind, a node is cordoned, and there is one VM more."""
    disturb(live)
    live.context().kube().delete("policy/v1", "PodDisruptionBudget", "never", "shop")
    code, text, folder = rehearse("upgrade-talos", *SET, "--set", "platform.deadlines.gate=10.0")
    assert code == 1
    plan, note = planned(live, folder)
    assert f"the plan in the lab is the live one, {plan.digest}" in text
    stopped = r"every Longhorn volume is healthy: .*robustness is"
    assert re.search(stopped, text)
    assert re.search(rf"rehearsed .* ago in the lab, failed, \d+ s: .*{stopped}", note)
    stage = live.stage("upgrade-talos", *TO, "platform.deadlines.gate=2.0")
    with pytest.raises(DeadlineExceeded) as raised:
        stage.apply(stage.plan())
    assert re.search(stopped, raised.value.message + raised.value.cause)
