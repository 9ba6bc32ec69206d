"""The certificates and kubeconfigs that Talos writes for the control plane, from one node's machine configuration.

A document without an authority or key fails here with its name, where a node would fail to start a static pod.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from fluobook.errors import PHASE, FluobookError
from fluobook.machine import pki
from fluobook_lab.http import issue_for
from fluobook_lab.talos.config import pair

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fluobook.machine.pki import KeyPair
    from fluobook_lab.talos import MachineConfiguration

MASTERS = "system:masters"
REMEDY = f"see what stage 2 rendered: `fluobook render {PHASE} --out build`"


@dataclass(frozen=True)
class Files:
    """The files that the programs of one control plane node read.

    Args:
        folder: for these files alone.
    """

    folder: Path

    def write(self, name: str, text: str) -> None:
        """Write a file with mode 0600."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)

    def write_pair(self, name: str, issued: KeyPair) -> None:
        """Write a certificate and its key."""
        self.write(f"{name}.crt", issued.crt)
        if issued.key:
            self.write(f"{name}.key", pki.openssl_key(issued.key))


def authority(config: MachineConfiguration, *path: str) -> KeyPair:
    """A certificate authority of the configuration, such as cluster.etcd.ca.

    Raises:
        FluobookError: it is missing, has no key, or cannot sign.
    """
    value: Any = config.folded
    for name in path:
        value = (value or {}).get(name)
    issuer, field = pair(value), ".".join(path)
    if not issuer.crt or not issuer.key:
        raise FluobookError(f"the machine configuration has no {field} with certificate and key", remedy=REMEDY)
    if problem := _problem(issuer):
        message = f"{field} of the machine configuration cannot sign"
        raise FluobookError(message, cause=f"x509: {problem}", remedy=REMEDY)
    return issuer


def _problem(issuer: KeyPair) -> str:
    """Why no client would trust what an authority signs, as Go words it; "" if there is no problem."""
    try:
        certificate = x509.load_pem_x509_certificate(issuer.crt.encode())
        key = load_pem_private_key(pki.openssl_key(issuer.key).encode(), None)
    except ValueError as error:
        return f"malformed certificate or key: {error}"
    encoding = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*encoding) != key.public_key().public_bytes(*encoding):
        return "provided PrivateKey doesn't match parent's PublicKey"
    if certificate.not_valid_after_utc < dt.datetime.now(dt.UTC):
        return "certificate has expired or is not yet valid"
    with suppress(x509.ExtensionNotFound):
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return ""
    return "invalid signature: parent certificate cannot sign this kind of certificate"


def write_identities(files: Files, config: MachineConfiguration, address: str) -> None:
    """Write every authority, certificate and key that a control plane node needs.

    Raises:
        FluobookError: the configuration lacks an authority.
    """
    files.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    cluster = authority(config, "cluster", "ca")
    etcd, front = authority(config, "cluster", "etcd", "ca"), authority(config, "cluster", "aggregatorCA")
    for name, issuer in (("ca", cluster), ("etcd-ca", etcd), ("aggregator-ca", front)):
        files.write_pair(name, issuer)
    files.write_pair("apiserver", _api_server(cluster, config, address))
    files.write_pair("kubelet-client", _client(cluster, "apiserver-kubelet-client", MASTERS))
    files.write_pair("front-proxy", _client(front, "front-proxy-client"))
    files.write_pair("etcd-client", _client(etcd, "kube-apiserver"))
    own = pki.issue(etcd, common_name="etcd", dns=("localhost",), ips=("127.0.0.1", address), server=True, client=True)
    files.write_pair("etcd-server", own)
    service_account = (config.cluster.get("serviceAccount") or {}).get("key")
    if not service_account:
        raise FluobookError("the machine configuration has no cluster.serviceAccount.key")
    files.write("service-account.key", base64.b64decode(str(service_account)).decode())


def write_kubeconfig(
    files: Files, name: str, server: str, user: str, groups: Sequence[str] = (), *, namespace: str = "default"
) -> None:
    """Write NAME.kubeconfig, with a new client certificate for a user and its groups."""
    cluster = pki.KeyPair((files.folder / "ca.crt").read_text(), (files.folder / "ca.key").read_text())
    issued = pki.issue(cluster, common_name=user, organizations=groups, client=True)
    files.write_pair(name, issued)
    authority, certificate, key = (
        base64.b64encode(text.encode()).decode() for text in (cluster.crt, issued.crt, pki.openssl_key(issued.key))
    )
    place = {"server": server, "certificate-authority-data": authority}
    identity = {"client-certificate-data": certificate, "client-key-data": key}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": place}],
        "users": [{"name": name, "user": identity}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name, "namespace": namespace}}],
    }
    files.write(f"{name}.kubeconfig", json.dumps(document))


def _api_server(cluster: KeyPair, config: MachineConfiguration, address: str) -> KeyPair:
    """Its certificate, valid for the names in the configuration and those that Talos and Kubernetes add."""
    names = [str(name) for name in (config.cluster.get("apiServer") or {}).get("certSANs") or ()]
    names += [config.endpoint.removeprefix("https://").rpartition(":")[0], address, "127.0.0.1", "localhost"]
    domain = (config.cluster.get("network") or {}).get("dnsDomain") or "cluster.local"
    names += ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}"]
    names += [config.hostname]
    with suppress(ValueError):  # the Service `kubernetes` has the first address of each subnet
        subnets = (config.cluster.get("network") or {}).get("serviceSubnets") or ["10.96.0.0/12"]
        names += [str(ip_network(subnet)[1]) for subnet in subnets]
    return issue_for(
        cluster,
        names,
        common_name="kube-apiserver",
        organizations=["kube-master"],
        key_encipherment=True,
    )


def _client(signer: KeyPair, name: str, *groups: str) -> KeyPair:
    return pki.issue(signer, common_name=name, organizations=groups, client=True, key_encipherment=True)
