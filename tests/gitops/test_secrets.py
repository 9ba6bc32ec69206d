from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from fluobook import gitops
from fluobook.clients import age, sops
from fluobook.errors import BadFile
from fluobook.gitops.rules.secrets import (
    keys_are_not_in_the_tree,
    macs_are_intact,
    recipients_are_right,
    secrets_are_encrypted,
)
from fluobook.gitops.secrets import names, wanted_for
from fluobook.gitops.snapshot import Snapshot

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_lab_key_is_named_as_such_and_its_public_half_is_known():
    key = (REPOSITORY / "params/lab/lab.age").read_text()
    assert key.startswith("# LAB KEY — never use for a live cluster")
    assert gitops.lab_recipients(REPOSITORY) == {age.public_key(key)}


def test_what_the_repository_ships_is_for_the_lab_alone():
    files = gitops.encrypted_files(REPOSITORY)
    assert {encrypted.file.name for encrypted in files} >= {"pg-credentials.sops.yaml", "grafana-admin.sops.yaml"}
    for encrypted in files:
        if "cluster-gitops" in encrypted.file.parts:
            assert encrypted.recipients == encrypted.wanted == gitops.lab_recipients(REPOSITORY)


def test_no_key_of_a_secrets_bundle_survives_the_first_rule():
    bundle = "cluster: {id: abc, secret: def}\ncerts: {etcd: {crt: x, key: y}}\nlist: [one, 2, true]\n"
    path = REPOSITORY / "talos/secrets/fluodata.sops.yaml"
    text = sops.encrypt(bundle, path=path, config=REPOSITORY / ".sops.yaml")
    shown = text[: text.index("sops:")]
    assert shown.count("ENC[") == 7
    assert not any(line.split(": ", 1)[-1] in ("abc", "def", "x", "y", "one") for line in shown.splitlines())


def test_names_stay_readable_in_a_kubernetes_secret():
    path = REPOSITORY / "cluster-gitops/apps/secrets/new.sops.yaml"
    clear = "kind: Secret\nmetadata: {name: shown}\nstringData: {password: hidden}\n"
    text = sops.encrypt(clear, path=path, config=REPOSITORY / ".sops.yaml")
    assert "name: shown" in text
    assert "hidden" not in text


PEM_IN_BASE64 = base64.b64encode(b"-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n").decode()
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzL3Nl.c2lnbmF0dXJlLW9mLWl0LWFsbA"
LEAKED = {
    "AGE-SECRET-KEY-1QY" + "X" * 40: "an age key",
    "AGE-SECRET-KEY-PQ-1QY" + "X" * 40: "an age key",
    "-----BEGIN OPENSSH PRIVATE KEY-----": "a private key",
    "-----BEGIN ED25519 PRIVATE KEY-----": "a private key",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----": "a private key",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----": "a private key",
    f"key: {PEM_IN_BASE64}": "a private key in base64",
    "PrivateKey = " + "a" * 43 + "=": "a WireGuard key",
    "github_pat_" + "11ABCDEFG0" * 5: "a GitHub token",
    "token: ghp_" + "a1" * 18: "a GitHub token",
    "ghs_" + "a1" * 18: "a GitHub token",
    "glpat-" + "x1" * 10: "a GitLab token",
    "AWS_ACCESS_KEY_ID=AKIA" + "ABCDEFGH" * 2: "an AWS access key",
    "xoxb-" + "1234567890-1234567890": "a Slack token",
    "Authorization: PVEAPIToken=jo@pve!ci=01234567-89ab-cdef-0123-456789abcdef": "a Proxmox VE token",
    "hvs." + "CAESI" * 6: "a Vault token",
    "AIza" + "a" * 35: "a Google key",
    JWT: "a JSON web token",
    "https://discord.com/api/webhooks/123456789012345678/" + "a1B_" * 16: "a webhook with its token",
    "https://api.telegram.org/bot123456789:AA" + "a1B_" * 8 + "c/sendMessage": "a Telegram token",
    "https://hooks.slack.com/services/T01234567/B01234567/" + "a1" * 12: "a Slack token",
    "https://hc-ping.com/01234567-89ab-cdef-0123-456789abcdef": "a webhook with its token",
}
PUBLIC = (
    "age1v0zc3r87s8g2dxuctjedrqgaa0rmljt5sxy99qh88dgtpdny4csqrajdr5",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8QXb1aQyWc3 jo@example.org",
    "-----BEGIN CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----",
    "-----BEGIN PGP PUBLIC KEY BLOCK-----",
    "crt: " + base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMHcCAQEE\n").decode(),
    "PublicKey = " + "a" * 43 + "=",
    "sha256:" + "0123456789abcdef" * 4,
    "targetRevision: 0123456789abcdef0123456789abcdef01234567",
    "uuid: 01234567-89ab-cdef-0123-456789abcdef",
    "PVEAPIToken=USER@REALM!TOKENID=UUID",
    "prefixes ghp_, glpat-, AKIA and hvs. begin tokens",
    "- name: AGE-SECRET-KEY",
    "https://discord.com/api/webhooks/ID/TOKEN",
    "https://api.telegram.org/botTOKEN/sendMessage",
    "https://hooks.slack.com/services/T000/B000/XXX",
)


@pytest.mark.parametrize("line", [*LEAKED, *PUBLIC])
def test_a_committed_key_is_known_by_its_form_and_nothing_else_is(line: str, tmp_path: Path):
    file = tmp_path / "cluster-gitops" / "notes.txt"
    file.parent.mkdir()
    file.write_text(f"first\n{line}\n")
    found = list(keys_are_not_in_the_tree(Snapshot(tmp_path)))
    assert [(finding.line, finding.message) for finding in found] == (
        [(2, f"this line is {LEAKED[line]}")] if line in LEAKED else []
    )


@pytest.mark.parametrize(
    ("line", "is_leak"),
    [
        ("BRIDGE_PASSWORD=sample-pass-word-3", True),
        ("export API_KEY='sample-word'", True),
        ('  "token": "sample-word",', True),
        ("BRIDGE_PASSWORD=ENC[AES256_GCM,data:x,type:str]", False),
        ("BRIDGE_PASSWORD=$OTHER", False),
        ("BRIDGE_PASSWORD=", False),
        ("BRIDGE_USER=gateway", False),
        ('"automountServiceAccountToken": false', False),
        ("PASSWORD_FILE=/run/password", False),
        ('{"password": "hunter2hunter2"}', True),
        ('{"db": {"user": "a", "passwd":"hunter2hunter2"}}', True),
        ("curl -d token=hunter2hunter2 https://example.org", True),
        ("db: {user: a, password: hunter2hunter2}", True),
        ("api_key = 'hunter2hunter2'", True),
        ("- SECRET_KEY=hunter2hunter2", True),
        ("Server=db;User Id=a;Password=hunter2hunter2;", True),
        ('{"password": "${DB_PASSWORD}"}', False),
        ('{"password": ""}', False),
        ("mount the token: it is in a Secret", False),
        ("tokens and passwords: see the docs", False),
    ],
)
def test_every_text_file_is_searched_for_values_of_secrets(line: str, is_leak: bool, repository: Path):
    (repository / "cluster-gitops/apps/secrets/bridge.env").write_text(f"A=1\n{line}\n")
    found = [finding.line for finding in secrets_are_encrypted(Snapshot(repository))]
    assert found == ([2] if is_leak else [])


PLAINTEXT = {
    "env: [{name: DB_PASSWORD, value: hunter2hunter2}]": True,
    "env: [{name: DB_PASSWORD, value: $(OTHER)}]": False,
    "args: [--password, hunter2hunter2]": True,
    "args: [--db-password=hunter2hunter2]": True,
    "args: [--password-file, /run/password]": False,
    "args: [--password, --verbose]": False,
    "command: [sh, -c, 'mysql -u a --password=hunter2hunter2']": True,
    'data: {config.json: \'{"password": "hunter2hunter2"}\'}': True,
    'data: {config.json: \'{"password": "${DB_PASSWORD}"}\'}': False,
    "data: {app.toml: \"[db]\\npassword = 'hunter2hunter2'\\n\"}": True,
    'data: {app.ini: "[db]\\nPassword=hunter2hunter2\\n"}': True,
    "data: {app.yaml: 'db: {user: a, password: hunter2hunter2}'}": True,
    "data: {DSN: 'redis://:hunter2hunter2@cache:6379/0'}": True,
    "data: {DSN: 'amqp://app:hunter2hunter2@rabbitmq:5672/'}": True,
    "data: {URL: 'https://example.org/a?access_token=hunter2hunter2'}": True,
    "oidc: {clientSecret: hunter2hunter2}": True,
    "oidc: {clientSecret: $oidc.clientSecret}": True,
    "oidc: {clientSecretRef: {name: a}}": False,
    "existingSecret: grafana-admin": False,
    "text: 'Rotate the password: the page says how'": False,
}


@pytest.mark.parametrize("text", PLAINTEXT)
def test_a_secret_in_a_manifest_is_found_in_any_form(text: str, tmp_path: Path):
    file = tmp_path / "cluster-gitops" / "map.yaml"
    file.parent.mkdir()
    file.write_text(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\n{text}\n")
    found = [finding.line for finding in secrets_are_encrypted(Snapshot(tmp_path))]
    assert found[:1] == ([4] if PLAINTEXT[text] else [])


VALUES = {
    "stringData: {port: 1883}": "stringData.port is a number",
    "stringData: {ratio: 1.5}": "stringData.ratio is a number",
    "stringData: {tls: true}": "stringData.tls is a boolean",
    "stringData: {token: null}": "stringData.token is empty",
    'stringData: {proxy: ""}': "stringData.proxy is empty",
    "stringData: {hosts: [a, b]}": "stringData.hosts is not a text",
    "stringData: [a, b]": "stringData is not a mapping",
    "data: {token: plain-not-base64!}": "data.token is not base64",
    "data: {token: abc}": "data.token is not base64",
    "stringData: {port: '1883', tls: 'true'}": "",
    "data: {token: aGVsbG8=}": "",
}


@pytest.mark.parametrize("content", VALUES)
def test_a_value_that_kubernetes_refuses_is_found(content: str, repository: Path):
    file = repository / "cluster-gitops/apps/secrets/odd.sops.yaml"
    plain = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: odd, namespace: fluodata}}\n{content}\n"
    file.write_text(sops.encrypt(plain, path=file, config=repository / ".sops.yaml"))
    snapshot = Snapshot(repository)
    found = [finding.message for finding in (*secrets_are_encrypted(snapshot), *macs_are_intact(snapshot))]
    assert len(found) == bool(VALUES[content])
    assert all(VALUES[content] in message and "plain-not" not in message for message in found)


FIRST = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
SECOND = "age1v0zc3r87s8g2dxuctjedrqgaa0rmljt5sxy99qh88dgtpdny4csqrajdr5"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": f"{FIRST},ssh-ed25519 AAAAC3 jo"}, "all 2 files of this rule are encrypted for"),
        ({"age": f"{FIRST},age1pq1qqqqqqqqqq"}, "age1pq1qqqqq… is a post-quantum recipient"),
        ({"age": SECOND.replace("rajdr5", "rajdr6")}, "rajdr6 is no age recipient: a character of it is wrong"),
        ({"age": SECOND[:-1]}, "is no age recipient"),
        ({"age": FIRST}, f"it names {FIRST}, and all 2 files of this rule are encrypted for {SECOND}"),
        ({"pgp": "FBC7B9E2A4F9289AC0C1D4843D16CEE4A27381B4"}, "pgp can decrypt it too"),
        ({"kms": "arn:aws:kms:eu-central-1:1:key/x"}, "kms can decrypt it too"),
        ({"key_groups": [{"age": [FIRST]}, {"age": [SECOND]}]}, "2 of 2 key groups are needed"),
        ({"key_groups": [{"age": [FIRST]}, {"age": [SECOND]}], "shamir_threshold": 1}, "all 2 files of this rule"),
    ],
)
def test_recipients_that_argo_cd_cannot_be_are_refused_at_the_rule(change: dict, message: str, repository: Path):
    file = repository / ".sops.yaml"
    rules = yaml.safe_load(file.read_text())
    rules["creation_rules"][1] |= change
    file.write_text(yaml.safe_dump(rules))
    found = [f.message for f in recipients_are_right(Snapshot(repository)) if f.file.endswith("/.sops.yaml")]
    assert len(found) == bool(message)
    assert message in "".join(found)


def test_names_are_those_of_files_objects_and_keys_and_never_values(repository: Path):
    folder = repository / "cluster-gitops/apps/secrets"
    (folder / "odd.sops.yaml").write_text("kind: Secret\nmetadata: {name: odd-name}\nstringData: [sample-value]\n")
    (folder / "broken.yaml").write_text("a: [")
    known = names(repository)
    assert known >= {"odd-name", "odd.sops.yaml", "odd", "pg-credentials", "fluodata-pg-credentials", "password"}
    assert known >= {"Namespace", "namespace", "secret", *repository.resolve().parts}
    assert "sample-value" not in known


def test_a_path_that_is_too_long_for_a_pattern_is_refused_before_it_is_matched(tmp_path: Path) -> None:
    (tmp_path / ".sops.yaml").write_text("creation_rules: [{path_regex: '.*a.*a.*b$', age: age1x}]")
    with pytest.raises(BadFile, match="has a path of more than 200 characters"):
        wanted_for(tmp_path / ("a" * 250) / ("a" * 250) / ("a" * 4000), tmp_path)
