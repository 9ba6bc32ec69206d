"""The backups of the params: what Longhorn gets, what is refused, and which credentials are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fluobook import gitops, params
from fluobook.errors import ParamsError
from fluobook.gitops import root
from fluobook.gitops.check import RULES, findings


def objects(platform: Any, tree: Any) -> dict[tuple[str, str], dict[str, Any]]:
    made = root.objects_for(platform, gitops.for_phase(platform, tree))
    return {(document.kind, document.name): document.data["spec"] for document in made if "spec" in document.data}


def test_without_a_bucket_there_is_no_target_and_the_job_is_for_no_volume(platform: Any, tree: Any) -> None:
    made = objects(platform, tree)
    assert (made["BackupTarget", "default"]["backupTargetURL"], made["RecurringJob", "backup"]["groups"]) == ("", [])


def test_a_bucket_is_the_target_of_every_volume(platform: Any, tree: Any) -> None:
    wanted = {"bucket": "fluodata-backups", "region": "eu-central-1", "schedule": "0 3 * * *", "keep": 30}
    made = objects(params.overlay(platform, {"backups": wanted}), tree)
    target, job = made["BackupTarget", "default"], made["RecurringJob", "backup"]
    assert (target["backupTargetURL"], target["credentialSecret"]) == (
        "s3://fluodata-backups@eu-central-1/longhorn/",
        "longhorn-backup",
    )
    assert (job["groups"], job["cron"], job["retain"]) == (["default"], "0 3 * * *", 30)


@pytest.mark.parametrize(
    ("backups", "words"),
    [
        ({"bucket": "Backups"}, "must be the name of a bucket"),
        ({"bucket": "s3://backups"}, "must be the name of a bucket"),
        ({"schedule": "daily"}, "must be a schedule of five fields"),
        ({"schedule": "0 30 1 * * *"}, "must be a schedule of five fields"),
        ({"keep": 0}, "must be at least 1"),
        ({"secret_key": "x"}, "is not a known key"),
    ],
)
def test_wrong_backups_are_refused_with_the_reason(backups: dict[str, Any], words: str, phase3: Any) -> None:
    with pytest.raises(ParamsError) as refused:
        params.overlay(phase3, {"backups": backups})
    (problem,) = refused.value.problems
    assert words in problem


def test_a_bucket_without_its_credentials_is_a_finding(repository: Path) -> None:
    file, rules = repository / "params/phase1.yaml", {"backup": RULES["backup"]}
    assert findings(repository, rules) == []
    file.write_text(file.read_text().replace("bucket: null", "bucket: fluodata-backups"))
    (reported,) = findings(repository, rules)
    assert (reported.file, reported.message) == (
        "params/phase1.yaml",
        "no Secret longhorn-system/longhorn-backup has AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )
    assert "bucket:" in file.read_text().splitlines()[reported.line - 1]
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "longhorn-backup", "namespace": "longhorn-system"},
        "stringData": {"AWS_ACCESS_KEY_ID": "ENC[x]", "AWS_SECRET_ACCESS_KEY": "ENC[x]"},
    }
    folder = repository / "cluster-gitops/infrastructure/monitoring/secrets"
    (folder / "longhorn-backup.sops.yaml").write_text(yaml.safe_dump(secret))
    assert findings(repository, rules) == []
