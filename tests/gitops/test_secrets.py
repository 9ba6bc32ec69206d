from __future__ import annotations

from pathlib import Path

from fluobook import gitops
from fluobook.clients import age, sops

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
