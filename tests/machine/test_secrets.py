"""The secrets bundle: what a new one looks like, and which ones are refused."""

from __future__ import annotations

import base64
import copy
import re
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fluobook.errors import ParamsError
from fluobook.failures import present
from fluobook.machine import pki
from fluobook.machine.secrets import SecretsBundle, new_secrets


def _organizations(pair: pki.KeyPair) -> str:
    return pki.certificate(pair.crt).subject.rfc4514_string()


def test_a_new_bundle_has_the_sections_that_talosctl_writes(secrets: SecretsBundle) -> None:
    bundle = secrets.as_mapping()
    assert {section: sorted(content) for section, content in bundle.items()} == {
        "cluster": ["id", "secret"],
        "secrets": ["bootstraptoken", "secretboxencryptionsecret"],
        "trustdinfo": ["token"],
        "certs": ["etcd", "k8s", "k8saggregator", "k8sserviceaccount", "os"],
    }


def test_authorities_have_the_subjects_and_kinds_of_keys_that_talos_gives_them(secrets: SecretsBundle) -> None:
    found = {
        _organizations(pair): type(pki.private_key(pair.key))
        for pair in (secrets.etcd, secrets.kubernetes, secrets.aggregator, secrets.talos)
    }
    assert list(found) == ["O=etcd", "O=kubernetes", "CN=front-proxy", "O=talos"]
    kinds = list(found.values())
    assert all(issubclass(kind, ec.EllipticCurvePrivateKey) for kind in kinds[:3])
    assert issubclass(kinds[3], ed25519.Ed25519PrivateKey)


@pytest.mark.usefixtures("talos_rsa_bits")
def test_the_service_account_key_is_rsa_with_4096_bits() -> None:
    key = pki.private_key(new_secrets().service_account_key)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 4096


def test_tokens_and_random_values_have_talos_lengths(secrets: SecretsBundle) -> None:
    for token in (secrets.bootstrap_token, secrets.trustd_token):
        assert re.fullmatch(r"[0-9a-z]{6}\.[0-9a-z]{16}", token)
    assert len(base64.urlsafe_b64decode(secrets.cluster_id)) == 32
    assert not set("+/") & set(secrets.cluster_id)
    assert len(base64.b64decode(secrets.cluster_secret)) == 32
    assert len(base64.b64decode(secrets.secretbox_encryption_secret)) == 32


def test_no_two_bundles_are_alike(secrets: SecretsBundle) -> None:
    assert not set(new_secrets().values()) & set(secrets.values())


def test_a_bundle_survives_the_way_through_yaml(secrets: SecretsBundle) -> None:
    assert SecretsBundle.parse(yaml.safe_load(yaml.safe_dump(secrets.as_mapping()))) == secrets


def test_an_old_cluster_keeps_its_aescbc_secret(secrets: SecretsBundle) -> None:
    bundle = secrets.as_mapping()
    bundle["secrets"]["aescbcencryptionsecret"] = bundle["secrets"].pop("secretboxencryptionsecret")
    assert SecretsBundle.parse(bundle).as_mapping() == bundle


def _without(bundle: dict[str, Any], *path: str) -> dict[str, Any]:
    changed = copy.deepcopy(bundle)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    return changed


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (("cluster",), "cluster.secret: is required"),
        (("cluster", "id"), "cluster.id: is required"),
        (("secrets", "bootstraptoken"), "secrets.bootstraptoken: is required"),
        (("secrets", "secretboxencryptionsecret"), "exactly one of"),
        (("trustdinfo",), "trustdinfo.token: is required"),
        (("certs",), "certs.etcd.crt: is required"),
        (("certs", "os"), "certs.os.key: is required"),
        (("certs", "k8s", "key"), "certs.k8s.key: is required"),
        (("certs", "k8sserviceaccount"), "certs.k8sserviceaccount.key: is required"),
    ],
)
def test_what_is_missing_is_named(secrets: SecretsBundle, path: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ParamsError) as caught:
        SecretsBundle.parse(_without(secrets.as_mapping(), *path))
    assert any(problem in each for each in caught.value.problems)


def test_all_problems_are_reported_at_once_without_a_value(secrets: SecretsBundle) -> None:
    bundle = secrets.as_mapping()
    bundle["certs"]["etcd"]["key"] = "not base64"
    bundle["certs"]["k8s"]["crt"] = base64.b64encode(b"no certificate").decode()
    bundle["certs"]["os"]["key"] = bundle["certs"]["os"]["crt"]
    bundle["certs"]["k8sserviceaccount"]["key"] = base64.b64encode(b"no key").decode()
    bundle["secrets"]["aescbcencryptionsecret"] = "one too many"
    bundle["trustdinfo"]["token"] = 7
    with pytest.raises(ParamsError) as caught:
        SecretsBundle.parse(bundle)
    told = present(caught.value).text()
    for place in ("certs.etcd", "certs.k8s:", "certs.os", "certs.k8sserviceaccount", "exactly one", "trustdinfo.token"):
        assert place in told
    assert "one too many" not in told


def test_a_key_that_belongs_to_another_certificate_is_refused(secrets: SecretsBundle) -> None:
    bundle = secrets.as_mapping()
    bundle["certs"]["etcd"]["key"] = bundle["certs"]["k8s"]["key"]
    with pytest.raises(ParamsError) as caught:
        SecretsBundle.parse(bundle)
    assert caught.value.problems == ("certs.etcd: the key does not belong to the certificate",)


def test_a_bundle_that_is_still_encrypted_is_refused(secrets: SecretsBundle) -> None:
    with pytest.raises(ParamsError, match="still encrypted"):
        SecretsBundle.parse({**secrets.as_mapping(), "sops": {"mac": "…"}})


def test_everything_secret_is_listed_and_nothing_of_it_is_in_the_repr(secrets: SecretsBundle) -> None:
    bundle = secrets.as_mapping()
    leaves = [*bundle["cluster"].values(), *bundle["secrets"].values(), *bundle["trustdinfo"].values()]
    leaves += [pki.KeyPair.from_base64({"crt": "", **pair}).key for pair in bundle["certs"].values() if "key" in pair]
    assert set(leaves) <= set(secrets.values())
    assert [value for value in secrets.values() if value in repr(secrets)] == [secrets.cluster_id]


def test_the_secret_half_of_a_token_is_a_secret_too(secrets: SecretsBundle) -> None:
    assert secrets.bootstrap_token.split(".")[1] in secrets.values()
