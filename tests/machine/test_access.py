"""talosconfig and kubeconfig made from the bundle."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fluobook.machine import access, pki

if TYPE_CHECKING:
    from fluobook.machine.secrets import SecretsBundle


def _leaf(encoded: str, authority: pki.KeyPair) -> x509.Certificate:
    crt = pki.certificate(base64.b64decode(encoded).decode())
    crt.verify_directly_issued_by(pki.certificate(authority.crt))
    return crt


def _is_client_only(crt: x509.Certificate) -> bool:
    usages = crt.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("role", [access.ADMIN, access.READER, access.ETCD_BACKUP])
def test_a_talosconfig_carries_a_client_certificate_of_the_role(secrets: SecretsBundle, role: str) -> None:
    identity = access.talos_client(secrets, role)
    config = access.talosconfig("harbour", secrets, identity, endpoints=["192.0.2.1"], nodes=["192.0.2.1", "192.0.2.7"])
    assert config["context"] == "harbour"
    context = config["contexts"]["harbour"]
    crt = _leaf(context["crt"], secrets.talos)
    assert crt.subject.rfc4514_string() == f"O={role}"
    assert _is_client_only(crt)
    assert base64.b64decode(context["key"]).decode().startswith("-----BEGIN ED25519 PRIVATE KEY-----")
    assert base64.b64decode(context["ca"]).decode() == secrets.talos.crt
    assert (context["endpoints"], context["nodes"]) == (["192.0.2.1"], ["192.0.2.1", "192.0.2.7"])


def test_a_talosconfig_without_nodes_says_nothing_of_them(secrets: SecretsBundle) -> None:
    config = access.talosconfig("c", secrets, access.talos_client(secrets, access.ADMIN), endpoints=["192.0.2.1"])
    assert set(config["contexts"]["c"]) == {"endpoints", "ca", "crt", "key"}


def _parts(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return config["clusters"][0]["cluster"], config["users"][0]["user"]


def test_a_kubeconfig_makes_an_administrator(secrets: SecretsBundle) -> None:
    config = access.kubeconfig(secrets, "harbour", "https://192.0.2.9:6443")
    cluster, user = _parts(config)
    crt = _leaf(user["client-certificate-data"], secrets.kubernetes)
    assert crt.subject.rfc4514_string() == "CN=admin,O=system:masters"
    assert _is_client_only(crt)
    pki.private_key(base64.b64decode(user["client-key-data"]).decode())
    assert cluster["server"] == "https://192.0.2.9:6443"
    assert base64.b64decode(cluster["certificate-authority-data"]).decode() == secrets.kubernetes.crt
    assert "tls-server-name" not in cluster
    assert config["current-context"] == config["contexts"][0]["name"] == config["users"][0]["name"] == "admin@harbour"


def test_a_mapped_endpoint_is_verified_by_the_name_in_its_certificate(secrets: SecretsBundle) -> None:
    identity = access.kubernetes_client(secrets, common_name="ro", organizations=["readers"], days=1)
    config = access.kubeconfig(secrets, "h", "https://127.0.0.1:40001", server_name="192.0.2.9", identity=identity)
    cluster, user = _parts(config)
    assert cluster["tls-server-name"] == "192.0.2.9"
    assert base64.b64decode(user["client-certificate-data"]).decode() == identity.crt


def test_the_text_reads_back_the_same(secrets: SecretsBundle) -> None:
    config = access.kubeconfig(secrets, "harbour", "https://192.0.2.9:6443")
    assert yaml.safe_load(access.dump(config)) == config
