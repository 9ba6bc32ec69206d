"""Certificates and keys: forms Talos writes, and forms real TLS stacks accept."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fluobook_lab.kube.controllers.certificates import sign_request

from fluobook.errors import FluobookError
from fluobook.failures import present
from fluobook.machine import pki


@pytest.fixture(scope="module")
def talos_authority() -> pki.KeyPair:
    return pki.new_authority(organization="talos", algorithm="ed25519")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict:
    """One TLS handshake over a socket pair; returns the client's certificate as the server sees it."""
    left, right = socket.socketpair()
    for end in (left, right):
        end.settimeout(10)
    seen: dict = {}

    def serve() -> None:
        try:
            with server.wrap_socket(left, server_side=True) as connection:
                seen.update(connection.getpeercert() or {})
                connection.sendall(b"ok")
        except ssl.SSLError as error:
            seen["error"] = error
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(right, server_hostname=name) as connection:
            connection.recv(2)
    finally:
        thread.join(10)
    return seen


def _contexts(
    authority: pki.KeyPair, server: pki.KeyPair, client: pki.KeyPair
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.crt)
    listening.verify_mode = ssl.CERT_REQUIRED
    calling = ssl.create_default_context(cadata=authority.crt)
    for context, pair in ((listening, server), (calling, client)):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        pki.load_identity(context, pair)
    return listening, calling


@pytest.mark.parametrize("algorithm", ["ecdsa", "ed25519"])
def test_both_sides_of_a_strict_handshake_accept_each_other(algorithm: str) -> None:
    authority = pki.new_authority(organization="lab", algorithm=algorithm)
    server = pki.issue(authority, common_name="apid", dns=["node-1"], ips=["10.0.0.7"], server=True)
    client = pki.issue(authority, organizations=["os:reader"], client=True)
    listening, calling = _contexts(authority, server, client)
    assert _handshake(listening, calling, "10.0.0.7")["subject"] == ((("organizationName", "os:reader"),),)
    assert "error" not in _handshake(listening, calling, "node-1")


def test_a_name_outside_the_certificate_is_refused(talos_authority: pki.KeyPair) -> None:
    server = pki.issue(talos_authority, ips=["10.0.0.7"], server=True)
    client = pki.issue(talos_authority, organizations=["os:admin"], client=True)
    listening, calling = _contexts(talos_authority, server, client)
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        _handshake(listening, calling, "10.0.0.8")


def test_an_ed25519_key_has_the_label_talos_insists_on_and_openssl_gets_its_own(talos_authority: pki.KeyPair) -> None:
    assert talos_authority.key.startswith("-----BEGIN ED25519 PRIVATE KEY-----\n")
    assert talos_authority.key.endswith("-----END ED25519 PRIVATE KEY-----\n")
    with pytest.raises(ValueError, match="PEM"):
        serialization.load_pem_private_key(talos_authority.key.encode(), None)
    relabelled = pki.openssl_key(talos_authority.key)
    serialization.load_pem_private_key(relabelled.encode(), None)
    assert pki.openssl_key(relabelled) == relabelled


def test_an_ecdsa_key_has_the_label_kubernetes_writes() -> None:
    pair = pki.new_authority(organization="kubernetes")
    assert pair.key.startswith("-----BEGIN EC PRIVATE KEY-----\n")
    assert isinstance(pki.private_key(pair.key), ec.EllipticCurvePrivateKey)


def test_an_authority_is_marked_as_talos_marks_its_own() -> None:
    crt = pki.certificate(pki.new_authority(organization="etcd", years=10).crt)
    assert crt.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "etcd"
    assert crt.subject == crt.issuer
    constraints = crt.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca
    usage = crt.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.key_cert_sign
    assert set(crt.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert (crt.not_valid_after_utc - crt.not_valid_before_utc).days == 3650


def test_a_request_is_signed_with_its_own_subject_and_names(talos_authority: pki.KeyPair) -> None:
    request = _request(names=[x509.DNSName("worker-1")])
    crt = pki.certificate(sign_request(talos_authority, request, server=True, key_encipherment=True, days=0.5))
    assert crt.subject.rfc4514_string() == "CN=system:node:worker-1,O=system:nodes"
    names = crt.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["worker-1"]
    crt.verify_directly_issued_by(pki.certificate(talos_authority.crt))
    assert crt.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment


def test_a_request_without_names_gets_a_certificate_without_names(talos_authority: pki.KeyPair) -> None:
    crt = pki.certificate(sign_request(talos_authority, _request(names=[]), client=True))
    with pytest.raises(x509.ExtensionNotFound):
        crt.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_a_request_with_a_forged_signature_is_refused(talos_authority: pki.KeyPair) -> None:
    der = bytearray(x509.load_pem_x509_csr(_request(names=[]).encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(FluobookError, match="not signed by its own key"):
        sign_request(talos_authority, forged)


def test_what_is_no_request_is_refused(talos_authority: pki.KeyPair) -> None:
    with pytest.raises(FluobookError, match="request cannot be read"):
        sign_request(talos_authority, "nonsense")


def test_fingerprints_are_written_as_proxmox_writes_them(talos_authority: pki.KeyPair) -> None:
    digest = x509.load_pem_x509_certificate(talos_authority.crt.encode()).fingerprint(hashes.SHA256())
    assert bytes.fromhex(pki.fingerprint(talos_authority.crt).replace(":", "")) == digest
    assert pki.fingerprint(talos_authority.crt) == pki.fingerprint(talos_authority.crt).upper()


def test_a_pair_survives_the_way_through_a_configuration(talos_authority: pki.KeyPair) -> None:
    assert pki.KeyPair.from_base64(talos_authority.to_base64()) == talos_authority


def test_a_broken_pair_is_refused_without_its_content() -> None:
    with pytest.raises(FluobookError, match="has no 'key'"):
        pki.KeyPair.from_base64({"crt": ""})
    with pytest.raises(FluobookError, match="not base64") as caught:
        pki.KeyPair.from_base64({"crt": "", "key": "?hush?"})
    assert "hush" not in present(caught.value).text()
    with pytest.raises(FluobookError, match="cannot be read"):
        pki.private_key("hush")


def test_a_key_is_not_in_the_repr(talos_authority: pki.KeyPair) -> None:
    assert "PRIVATE" not in repr(talos_authority)


def _request(*, names: list[x509.GeneralName]) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
        x509.NameAttribute(NameOID.COMMON_NAME, "system:node:worker-1"),
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
