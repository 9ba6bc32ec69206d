"""The backups of the params: what the tree gets of them, what is refused, and what `fluobook check` finds missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fluobook import gitops, params
from fluobook.errors import ParamsError
from fluobook.gitops import backups, root
from fluobook.gitops.check import RULES, all_findings, findings
from fluobook.gitops.tree import BACKUPS
from tests.gitops.conftest import REPOSITORY

WANTED = {
    "bucket": "fluodata-backups",
    "region": "eu-central-1",
    "endpoint": "https://s3.example.com",
    "schedule": "0 3 * * *",
    "keep": 30,
}
PARAMS = "params/phase1.yaml"
CLUSTER = "cluster-gitops/apps/postgresql/cluster/cluster.yaml"
BACKUP = "cluster-gitops/apps/postgresql/backups/backups.yaml"


def tree_of(platform: Any) -> Any:
    return gitops.for_phase(platform, gitops.of(platform, REPOSITORY))


def objects(platform: Any) -> dict[tuple[str, str], dict[str, Any]]:
    made = root.objects_for(platform, tree_of(platform))
    return {(document.kind, document.name): document.data["spec"] for document in made if "spec" in document.data}


def switch_on(repository: Path, *without: backups.Credentials) -> None:
    """Name a bucket in the params, and add the Secrets that open it."""
    file = repository / PARAMS
    file.write_text(file.read_text().replace("backups: {bucket: null", "backups: {bucket: fluodata-backups"))
    for secret in {backups.LONGHORN, backups.DATA} - set(without):
        metadata = {"name": secret.name, "namespace": secret.namespace}
        data = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {}}
        data["stringData"] = dict.fromkeys(backups.KEYS, "ENC[x]")
        path = repository / "cluster-gitops" / f"{secret.file}.sops.yaml"
        path.write_text(yaml.safe_dump(data))
        generator = path.with_name("ksops-generator.yaml")
        generator.write_text(generator.read_text().rstrip("\n") + f"\n  - {path.name}\n")


def test_without_a_bucket_nothing_of_it_is_in_the_tree(platform: Any) -> None:
    made, tree = objects(platform), tree_of(platform)
    assert (made["BackupTarget", "default"]["backupTargetURL"], made["RecurringJob", "backup"]["groups"]) == ("", [])
    assert not {kind for kind, _ in made} & {"ObjectStore", "ScheduledBackup", "CronJob"}
    assert "plugins" not in made["Cluster", "fluodata-pg"]
    assert {app.name for app in tree.left_out} == {"barman-cloud", "postgresql-backups", "rabbitmq-backups"}
    removed = {patch.name for patch in gitops.patches_for(platform, tree) if patch.removes}
    assert removed == {app.name for app in tree.left_out}


def test_a_bucket_is_the_target_of_every_volume(platform: Any) -> None:
    made = objects(params.overlay(platform, {"backups": WANTED}))
    target, job = made["BackupTarget", "default"], made["RecurringJob", "backup"]
    assert (target["backupTargetURL"], target["credentialSecret"]) == (
        "s3://fluodata-backups@eu-central-1/longhorn/",
        "longhorn-backup",
    )
    assert (job["groups"], job["cron"], job["retain"]) == (["default"], "0 3 * * *", 30)


def test_a_bucket_is_the_archive_of_postgresql(platform: Any) -> None:
    with_bucket = params.overlay(platform, {"backups": WANTED})
    made, tree = objects(with_bucket), tree_of(with_bucket)
    store, schedule = made["ObjectStore", "backups"], made["ScheduledBackup", "fluodata-pg"]
    assert store["configuration"]["destinationPath"] == "s3://fluodata-backups/postgresql/"
    assert store["configuration"]["endpointURL"] == "https://s3.example.com"
    assert store["instanceSidecarConfiguration"]["env"][0] == {"name": "AWS_DEFAULT_REGION", "value": "eu-central-1"}
    assert (store["retentionPolicy"], schedule["schedule"]) == ("30d", "0 0 3 * * *")
    (plugin,) = made["Cluster", "fluodata-pg"]["plugins"]
    assert (plugin["isWALArchiver"], plugin["parameters"]["barmanObjectName"]) == (True, "backups")
    assert not tree.left_out
    operator, database = tree.application("cnpg-operator"), tree.application("postgresql")
    assert tree.application("barman-cloud").namespace == operator.namespace
    assert tree.application("cert-manager").wave < tree.application("barman-cloud").wave < database.wave


def test_a_bucket_is_where_definitions_of_rabbitmq_go(platform: Any) -> None:
    with_bucket = params.overlay(platform, {"backups": WANTED})
    made = {each.name: each.data for each in root.objects_for(with_bucket, tree_of(with_bucket))}
    settings = made["rabbitmq-definitions"]["data"]
    assert (settings["BUCKET"], settings["ENDPOINT"], settings["KEEP"]) == (
        "fluodata-backups",
        "https://s3.example.com",
        "30",
    )
    assert objects(with_bucket)["CronJob", "rabbitmq-definitions"]["schedule"] == "0 3 * * *"


def test_backups_are_left_out_with_the_database_that_they_are_of(phase3: Any) -> None:
    wanted = {"backups": WANTED, "gitops": {"without": ["postgresql"]}}
    made = objects(params.overlay(phase3, wanted))
    assert not {kind for kind, _ in made} & {"ObjectStore", "ScheduledBackup", "Cluster"}
    with pytest.raises(ParamsError, match="cannot be followed") as refused:
        gitops.of(params.overlay(phase3, {"backups": WANTED, "gitops": {"without": ["barman-cloud"]}}), REPOSITORY)
    assert "postgresql-backups needs group barmancloud.cnpg.io" in refused.value.problems[0]


@pytest.mark.parametrize(
    ("backups", "words"),
    [
        ({"bucket": "Backups"}, "must be the name of a bucket"),
        ({"bucket": "s3://backups"}, "must be the name of a bucket"),
        ({"endpoint": "s3.example.com"}, "must be the URL of a server"),
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


def test_a_bucket_without_its_credentials_is_a_finding_for_each_secret(repository: Path) -> None:
    rules = {name: RULES[name] for name in ("backup", "reference")}
    assert findings(repository, rules) == []
    switch_on(repository, backups.LONGHORN, backups.DATA)
    reported = findings(repository, rules, has=(BACKUPS,))
    assert [(each.file, each.message) for each in reported] == [
        (PARAMS, f"no Secret {name} has AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        for name in ("fluodata/fluodata-backup", "longhorn-system/longhorn-backup")
    ]
    assert "bucket:" in (repository / PARAMS).read_text().splitlines()[reported[0].line - 1]


def test_longhorn_needs_the_address_of_another_service_in_its_secret(repository: Path) -> None:
    switch_on(repository)
    file = repository / PARAMS
    file.write_text(file.read_text().replace("endpoint: null", "endpoint: https://s3.example.com"))
    (reported,) = findings(repository, {"backup": RULES["backup"]}, has=(BACKUPS,))
    assert reported.message == "no Secret longhorn-system/longhorn-backup has AWS_ENDPOINTS"


def test_a_tree_with_a_bucket_has_no_other_finding(repository: Path) -> None:
    switch_on(repository)
    about_encryption = {"cleartext", "mac", "recipient"}
    assert [each for each in all_findings(repository) if each.rule not in about_encryption] == []


MISTAKES = {
    "a schedule of five fields": (
        BACKUP,
        "schedule: 0 30 1 * * *  ",
        "schedule: 30 1 * * *",
        "shape",
        "seconds first",
    ),
    "no method": (BACKUP, "  method: plugin\n", "", "setting", "spec.method is not plugin or volumeSnapshot"),
    "another plugin": (
        BACKUP,
        "{name: barman-cloud.cloudnative-pg.io}",
        "{name: barman-cloud.cnpg.io}",
        "backup",
        "for the plugin barman-cloud.cnpg.io, which Cluster fluodata-pg does not have",
    ),
    "a schedule for another cluster": (
        BACKUP,
        "cluster: {name: fluodata-pg}",
        "cluster: {name: fluodata}",
        "backup",
        "no ScheduledBackup is for Cluster fluodata-pg",
    ),
    "a suspended schedule": (
        BACKUP,
        "  immediate: true\n",
        "  immediate: true\n  suspend: true\n",
        "backup",
        "no ScheduledBackup is for Cluster fluodata-pg",
    ),
    "an unknown store": (
        CLUSTER,
        "barmanObjectName: backups",
        "barmanObjectName: backup",
        "reference",
        "ObjectStore backup",
    ),
    "no archive": (
        CLUSTER,
        "isWALArchiver: true",
        "isWALArchiver: false",
        "backup",
        "does not archive its log",
    ),
    "a server's name in the store": (
        BACKUP,
        "    data: {compression: gzip}\n",
        "    serverName: fluodata-pg\n",
        "shape",
        "serverName",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_backup_that_could_not_be_restored_is_a_finding(repository: Path, mistake: str) -> None:
    file, old, new, rule, words = MISTAKES[mistake]
    switch_on(repository)
    path = repository / file
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    rules = {name: RULES[name] for name in ("backup", "reference", "setting", "valid", "shape")}
    reported = findings(repository, rules, has=(BACKUPS,))
    assert any(each.rule == rule and words in each.message for each in reported), reported


def test_a_part_of_an_object_has_a_place_only_with_what_it_is_for(repository: Path) -> None:
    file = repository / "cluster-gitops/apps/postgresql/cluster/application.yaml"
    file.write_text(file.read_text().replace("/spec/plugins", "/spec/plugin"))
    assert findings(repository, {"phase-value": RULES["phase-value"]}) == []
    switch_on(repository)
    (reported,) = findings(repository, {"phase-value": RULES["phase-value"]}, has=(BACKUPS,))
    assert reported.message == "Cluster fluodata-pg has nothing at /spec/plugin"


def test_a_condition_that_no_platform_can_meet_is_a_finding(repository: Path) -> None:
    for part, old in (("plugin", "only-with: backups"), ("cluster", "only_with: backups")):
        file = repository / f"cluster-gitops/apps/postgresql/{part}/application.yaml"
        file.write_text(file.read_text().replace(old, old.removesuffix("s")))
    reported = findings(repository, {"phase-value": RULES["phase-value"]})
    assert [each.message for each in reported] == [
        "backup is no feature of a platform that an Application can depend on"
    ] * 2
