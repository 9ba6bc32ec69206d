"""The alert rules: each fires when it should, with the right text, and is silent when it should be (promtool)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
TOP = REPOSITORY / "cluster-gitops"
RULES = [TOP / "infrastructure/monitoring/config/rules.yaml", *sorted(TOP.glob("apps/*/cluster/alerts.yaml"))]
GROUPS = [group for file in RULES for group in yaml.safe_load(file.read_text())["spec"]["groups"]]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
CASES = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())


def test_every_rule_has_series_that_fire_it_and_series_that_do_not():
    assert list(CASES) == list(ALERTS)
    assert [name for name, case in CASES.items() if not case["silent"] and name != "Watchdog"] == []


def test_every_alert_has_a_severity_and_says_what_to_do():
    assert {rule["labels"]["severity"] for rule in ALERTS.values()} == {"critical", "warning", "none"}
    texts = {"summary", "description", "first_step", "runbook_url"}
    assert [name for name, rule in ALERTS.items() if set(rule["annotations"]) != texts] == []


@pytest.mark.promtool
def test_each_rule_fires_and_is_silent_when_it_should_be(tmp_path: Path):
    write_tests(tmp_path, GROUPS, CASES)
    done = run_promtool(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.promtool
@pytest.mark.parametrize("name", ["LonghornVolumeDegraded", "ApplicationOutOfSync"])
def test_a_rule_in_the_form_of_another_version_does_not_pass(name: str, tmp_path: Path):
    """The two mistakes that this table was made for: a value that never comes, and a wait that starts again."""
    wrong = {
        "LonghornVolumeDegraded": "longhorn_volume_robustness == 2",
        "ApplicationOutOfSync": 'argocd_app_info{sync_status!="Synced"} == 1',
    }
    rule = ALERTS[name] | {"expr": wrong[name]}
    write_tests(tmp_path, [{"name": "wrong", "rules": [rule]}], {name: CASES[name]})
    done = run_promtool(tmp_path)
    assert done.returncode == 1
    assert f"alertname: {name}" in done.stdout + done.stderr


def write_tests(folder: Path, groups: list[dict[str, Any]], cases: dict[str, Any]) -> None:
    """The rules, and a file of tests for each interval: a rule about days is not evaluated each minute."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    for every in {case.get("every", "1m") for case in cases.values()}:
        chosen = {name: case for name, case in cases.items() if case.get("every", "1m") == every}
        tests = [test for name, case in chosen.items() for test in promtool_tests(name, case, every)]
        document = {"rule_files": ["rules.yaml"], "evaluation_interval": every, "tests": tests}
        (folder / f"tests-{every}.yaml").write_text(yaml.safe_dump(document, allow_unicode=True))


def promtool_tests(name: str, case: dict[str, Any], every: str) -> list[dict[str, Any]]:
    """One alert's cases in the form that promtool reads."""
    rule = ALERTS[name]
    alert = {
        "exp_labels": case["labels"] | rule["labels"],
        "exp_annotations": rule["annotations"] | {"summary": case["summary"]},
    }
    firing = [case["fires"], *case.get("also", [])]
    alone = case | {"also": [], "silent": [], "others": []}
    others = [test for other in case.get("others", []) for test in promtool_tests(name, alone | other, every)]
    return others + [
        {
            "interval": every,
            "input_series": [series(line) for line in lines],
            "alert_rule_test": [{"eval_time": case["at"], "alertname": name, "exp_alerts": expected}],
        }
        for some, expected in ((firing, [alert]), (case["silent"], []))
        for lines in some
    ]


def series(line: str) -> dict[str, str]:
    """A line of the table: the series, a space, and its values."""
    name, values = line.split("} ", 1) if "} " in line else line.split(" ", 1)
    return {"series": name + "}" if "{" in name else name, "values": values}


def run_promtool(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder."""
    tests = sorted(path.name for path in folder.glob("tests-*.yaml"))
    command = [shutil.which("promtool") or "promtool", "test", "rules", *tests]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=200)
