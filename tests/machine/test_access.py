"""talosconfig and kubeconfig made from the bundle."""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fluobook.errors import FluobookError
from fluobook.machine import access, pki
from fluobook.machine.secrets import new_secrets

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


NOW = dt.datetime.now(dt.UTC) + dt.timedelta(hours=6)  # later than any certificate that a test of this run creates
DAY = dt.timedelta(days=1)
KINDS = ("kubeconfig", "talosconfig")


def _config(kind: str, secrets: SecretsBundle, identity: pki.KeyPair | None = None, name: str = "harbour") -> Any:
    if kind == "kubeconfig":
        return access.kubeconfig(secrets, name, "https://192.0.2.5:6443", identity=identity)
    identity = identity or access.talos_client(secrets, access.ADMIN)
    return access.talosconfig(name, secrets, identity, endpoints=["192.0.2.1"])


def _identity(kind: str, secrets: SecretsBundle, days: float = 365, **subject: Any) -> pki.KeyPair:
    if kind == "kubeconfig":
        return access.kubernetes_client(secrets, days=days, **subject)
    return access.talos_client(secrets, *subject.get("organizations", (access.ADMIN,)), days=days)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_written_before_is_up_to_date(secrets: SecretsBundle, kind: str) -> None:
    assert access.why_replace(_config(kind, secrets), _config(kind, secrets), NOW) == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("now", "problem"),
    [
        (NOW + 334 * DAY, ""),
        (NOW + 336 * DAY, "expires on"),
        (NOW + 364 * DAY, "expires on"),
        (NOW + 366 * DAY, "expired on"),
        (NOW + 4000 * DAY, "expired on"),
        (NOW - DAY, "is not valid before"),
    ],
)
def test_a_file_is_replaced_30_days_before_its_certificate_ends(
    secrets: SecretsBundle, kind: str, now: dt.datetime, problem: str
) -> None:
    reason = access.why_replace(_config(kind, secrets), _config(kind, secrets), now)
    assert problem in reason
    assert bool(problem) is bool(reason)


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_of_another_authority_is_replaced_although_the_file_names_ours(
    secrets: SecretsBundle, kind: str
) -> None:
    config = _config(kind, secrets, _identity(kind, new_secrets()))
    assert access.why_replace(config, _config(kind, secrets), NOW) == "has a client certificate of another authority"


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_with_other_rights_is_replaced_and_its_subject_is_named(
    secrets: SecretsBundle, kind: str
) -> None:
    identity = _identity(kind, secrets, organizations=("os:reader",))
    reason = access.why_replace(_config(kind, secrets, identity), _config(kind, secrets), NOW)
    assert "os:reader" in reason
    assert "with other rights" in reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_servers_certificate_is_replaced(secrets: SecretsBundle, kind: str) -> None:
    authority = secrets.kubernetes if kind == "kubeconfig" else secrets.talos
    names = {"common_name": "admin", "organizations": ("system:masters",)}
    subject: Any = names if kind == "kubeconfig" else {"organizations": (access.ADMIN,)}
    config = _config(kind, secrets, pki.issue(authority, **subject, server=True))
    assert "with other rights" in access.why_replace(config, _config(kind, secrets), NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_another_certificate_is_replaced(secrets: SecretsBundle, kind: str) -> None:
    first, second = _identity(kind, secrets), _identity(kind, secrets)
    config = _config(kind, secrets, pki.KeyPair(first.crt, second.key))
    assert "a key that does not belong" in access.why_replace(config, _config(kind, secrets), NOW)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half", ["crt", "key"])
def test_a_truncated_certificate_or_key_is_replaced_and_not_quoted(
    secrets: SecretsBundle, kind: str, half: str
) -> None:
    pair = _identity(kind, secrets)
    torn = pki.KeyPair(**{"crt": pair.crt, "key": pair.key, half: getattr(pair, half)[:90]})
    reason = access.why_replace(_config(kind, secrets, torn), _config(kind, secrets), NOW)
    assert "cannot be used" in reason
    assert pair.key.splitlines()[1][:20] not in reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [None, "text", 7, [], {}, {"contexts": None, "clusters": 3}, {"context": "x"}])
def test_a_file_that_is_something_else_is_replaced(secrets: SecretsBundle, kind: str, content: Any) -> None:
    assert access.why_replace(content, _config(kind, secrets), NOW)
    with pytest.raises(FluobookError):
        access.credential(content)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_cluster_is_replaced(secrets: SecretsBundle, kind: str) -> None:
    config = _config(kind, secrets, name="quay")
    assert "another cluster" in access.why_replace(config, _config(kind, secrets), NOW)


def test_a_credential_lasts_no_longer_than_its_authority(secrets: SecretsBundle) -> None:
    short = replace(secrets, talos=pki.new_authority(organization="talos", algorithm="ed25519", years=0))
    credential = access.credential(_config("talosconfig", short))
    assert credential.expires < credential.crt.not_valid_after_utc


@pytest.mark.parametrize(
    ("left", "text"), [(-1, "expired"), (0.5, "0 days"), (60.5, "60 days"), (61, "2 months"), (364.9, "11 months")]
)
def test_the_remaining_time_is_given_in_days_or_months(left: float, text: str) -> None:
    assert access.remaining(NOW + left * DAY, NOW) == text
