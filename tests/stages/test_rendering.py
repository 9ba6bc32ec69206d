"""What `fluobook render` writes: complete, the same each time, and without a secret unless a bundle is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from fluobook import params
from fluobook.clients import age, sops
from fluobook.errors import AccessDenied, NotFound, ParamsError
from fluobook.machine.contracts import fold
from fluobook.machine.documents import load
from fluobook.machine.secrets import new_secrets
from fluobook.redact import MASK, Redactor
from fluobook.stages.rendering import write_gitops, write_machines

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def chosen(shared_labs):
    lab = shared_labs()
    mirrors = json.loads((lab.folder / "lab.json").read_text())["overlay"]["gitops"]["mirrors"]
    return params.load("phase1", overrides=[f"gitops.mirrors={json.dumps(mirrors)}"], root=ROOT)


@pytest.fixture(scope="module")
def bundle():
    return new_secrets()


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def folded(path):
    """The configuration in the one form that does not depend on its contract."""
    return fold(load(path.read_text()))


def modes(files):
    return {file.stat().st_mode & 0o777 for file in files}


def test_every_node_cilium_and_a_talosconfig_are_written(chosen, tmp_path):
    files = write_machines(chosen, ROOT, tmp_path)
    names = [node.name for node in chosen.platform.nodes]
    assert [file.name for file in files] == [*(f"{name}.yaml" for name in names), "cilium.yaml", "talosconfig"]
    for node in chosen.platform.nodes:
        found = documents(tmp_path / f"{node.name}.yaml")
        assert found[0]["machine"]["type"] == node.role
        assert {"kind": "HostnameConfig", "hostname": node.name}.items() <= {
            key: value
            for document in found
            if document.get("kind") == "HostnameConfig"
            for key, value in document.items()
        }.items()
    inline = folded(tmp_path / f"{names[0]}.yaml")["cluster"]["inlineManifests"]
    assert inline == [{"name": "cilium", "contents": (tmp_path / "cilium.yaml").read_text()}]


def test_without_a_bundle_it_is_the_same_each_time_and_holds_no_key(chosen, tmp_path):
    first, second = (write_machines(chosen, ROOT, tmp_path / name) for name in ("a", "b"))
    assert [file.read_text() for file in first] == [file.read_text() for file in second]
    machine = folded(first[0])
    assert {machine["machine"]["token"], machine["machine"]["ca"]["key"], machine["cluster"]["secret"]} == {MASK}
    assert modes(first) == {0o644}


def test_with_a_bundle_the_files_hold_it_and_are_their_owners_alone(chosen, bundle, tmp_path):
    plain = tmp_path / "secrets.yaml"
    plain.write_text(yaml.safe_dump(bundle.as_mapping()))
    files = write_machines(chosen, ROOT, tmp_path / "out", plain)
    machine = folded(files[0])
    assert machine["machine"]["token"] == bundle.trustd_token
    assert machine["cluster"]["secret"] == bundle.cluster_secret
    assert modes(files) == {0o600}


def test_an_encrypted_bundle_is_opened_with_the_age_key_of_the_params(chosen, bundle, tmp_path):
    key, encrypted = tmp_path / "keys.txt", tmp_path / "secrets.sops.yaml"
    identity = age.generate()
    key.write_text(identity.file())
    text = yaml.safe_dump(bundle.as_mapping())
    encrypted.write_text(sops.encrypt(text, path=encrypted, recipients=[identity.recipient]))
    platform = params.overlay(chosen.platform, {"secrets": {"age_key": {"file": str(key)}}})
    ours = params.Params.model_construct(phase="phase1", platform=platform)
    files = write_machines(ours, ROOT, tmp_path / "out", encrypted)
    assert documents(files[0])[0]["machine"]["token"] == bundle.trustd_token
    key.write_text(age.generate().file())
    with pytest.raises(AccessDenied):
        write_machines(ours, ROOT, tmp_path / "again", encrypted)
    assert not (tmp_path / "again").exists()


def test_a_bundle_that_is_not_there_or_is_none_writes_nothing(chosen, tmp_path):
    with pytest.raises(NotFound):
        write_machines(chosen, ROOT, tmp_path / "out", tmp_path / "nowhere.yaml")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("cluster: {id: x}\n")
    with pytest.raises(ParamsError):
        write_machines(chosen, ROOT, tmp_path / "out", wrong)
    assert not (tmp_path / "out").exists()


def test_the_tree_is_written_as_the_phase_sees_it(tmp_path):
    chosen = params.load("phase1", overrides=["gitops.domain=berlin.example.org", "gitops.revision=v7"], root=ROOT)
    write_gitops(chosen, ROOT, tmp_path)
    (root,) = documents(tmp_path / "root.yaml")
    assert root["spec"]["source"]["targetRevision"] == "v7"
    (cilium,) = documents(tmp_path / "applications" / "cilium-config.yaml")
    assert cilium["spec"]["source"]["targetRevision"] == "v7"
    routes = documents(tmp_path / "objects" / "routes.yaml")
    hosts = [rule["host"] for route in routes if route["kind"] == "Ingress" for rule in route["spec"]["rules"]]
    assert hosts
    assert all(host.endswith(".berlin.example.org") for host in hosts)


def test_the_trees_secrets_stay_encrypted(tmp_path):
    write_gitops(params.load("phase1", root=ROOT), ROOT, tmp_path)
    secrets = [one for file in (tmp_path / "objects").iterdir() for one in documents(file) if one["kind"] == "Secret"]
    assert secrets
    values = [value for one in secrets for field in ("data", "stringData") for value in (one.get(field) or {}).values()]
    assert all(str(value).startswith("ENC[") for value in values)


def test_phase_three_renders_three_control_planes(shared_labs, tmp_path):
    lab = shared_labs(phase="phase3")
    files = write_machines(
        params.Params.model_construct(phase="phase3", platform=lab.context().platform), ROOT, tmp_path
    )
    kinds = [documents(file)[0].get("machine", {}).get("type") for file in files[:-2]]
    assert kinds.count("controlplane") == 3
    redactor = Redactor()
    redactor.add("127.0.0.1")
    assert not redactor.leaks(files[-1].read_text())
