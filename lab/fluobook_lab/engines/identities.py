"""The files that Talos writes for the control plane, made of one node's machine configuration and nothing else.

A document that lacks an authority or a key fails here by its name, where a node would fail to start a static pod.
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

from fluobook.errors import FluobookError
from fluobook.machine import pki
from fluobook_lab.talos.config import pair

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fluobook.machine.pki import KeyPair
    from fluobook_lab.talos import MachineConfiguration

MASTERS = "system:masters"
REMEDY = "see what stage 2 rendered: `fluobook render PHASE --out build`"


@dataclass(frozen=True)
class Files:
    """Where one control plane node keeps what its programs read.

    Args:
        folder: theirs alone.
    """

    folder: Path

    def crt(self, name: str) -> str:
        """A certificate."""
        return str(self.folder / f"{name}.crt")

    def key(self, name: str) -> str:
        """A private key."""
        return str(self.folder / f"{name}.key")

    def named(self, name: str) -> str:
        """Any other file."""
        return str(self.folder / name)

    def write(self, name: str, text: str) -> None:
        """Write a file that its owner alone reads."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)

    def write_pair(self, name: str, issued: KeyPair) -> None:
        """Write a certificate and its key."""
        self.write(f"{name}.crt", issued.crt)
        if issued.key:
            self.write(f"{name}.key", pki.openssl_key(issued.key))


def authority(config: MachineConfiguration, *path: str) -> KeyPair:
    """An authority of the configuration, such as cluster.etcd.ca.

    Raises:
        FluobookError: it is missing, or has no key.
    """
    value: Any = config.main
    for name in path:
        value = (value or {}).get(name)
    found = pair(value)
    if not found.crt or not found.key:
        raise FluobookError(
            f"the machine configuration has no {'.'.join(path)} with certificate and key",
            remedy=REMEDY,
        )
    if fault := _fault(found):
        raise FluobookError(
            f"{'.'.join(path)} of the machine configuration cannot sign", cause=f"x509: {fault}", remedy=REMEDY
        )
    return found


def _fault(found: KeyPair) -> str:
    """Why nobody would trust what an authority signs, in Go's words; "" if nothing is wrong with it."""
    try:
        certificate = x509.load_pem_x509_certificate(found.crt.encode())
        key = load_pem_private_key(pki.openssl_key(found.key).encode(), None)
    except ValueError as error:
        return f"malformed certificate or key: {error}"
    shape = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*shape) != key.public_key().public_bytes(*shape):
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
    for name, found in (("ca", cluster), ("etcd-ca", etcd), ("aggregator-ca", front)):
        files.write_pair(name, found)
    files.write_pair("apiserver", _api_server(cluster, config, address))
    files.write_pair("kubelet-client", _client(cluster, "apiserver-kubelet-client", MASTERS))
    files.write_pair("front-proxy", _client(front, "front-proxy-client"))
    files.write_pair("etcd-client", _client(etcd, "kube-apiserver"))
    own = pki.issue(etcd, common_name="etcd", dns=("localhost",), ips=("127.0.0.1", address), server=True, client=True)
    files.write_pair("etcd-server", own)
    files.write("service-account.key", _service_account(config))


def write_kubeconfig(
    files: Files, name: str, server: str, user: str, groups: Sequence[str] = (), *, namespace: str = "default"
) -> None:
    """A kubeconfig for a part of the control plane, or the lab itself."""
    cluster = pki.KeyPair((files.folder / "ca.crt").read_text(), (files.folder / "ca.key").read_text())
    issued = pki.issue(cluster, common_name=user, organizations=groups, client=True)
    files.write_pair(name, issued)
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority-data": _data(cluster.crt)}}],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": _data(issued.crt),
                    "client-key-data": _data(pki.openssl_key(issued.key)),
                },
            }
        ],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name, "namespace": namespace}}],
        "current-context": "lab",
    }
    files.write(f"{name}.kubeconfig", json.dumps(document))


def _api_server(cluster: KeyPair, config: MachineConfiguration, address: str) -> KeyPair:
    """Its certificate is good for what the configuration names, and for what Talos and Kubernetes always add."""
    names = [str(name) for name in (config.cluster.get("apiServer") or {}).get("certSANs") or ()]
    names += [config.endpoint.removeprefix("https://").rpartition(":")[0], address, "127.0.0.1", "localhost"]
    domain = (config.cluster.get("network") or {}).get("dnsDomain") or "cluster.local"
    names += ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}"]
    names += [config.hostname]
    names += _first_of_services(config)
    return pki.issue(
        cluster,
        common_name="kube-apiserver",
        organizations=["kube-master"],
        dns=sorted({name for name in names if name and not _is_ip(name)}),
        ips=sorted({name for name in names if _is_ip(name)}),
        server=True,
        key_encipherment=True,
    )


def _first_of_services(config: MachineConfiguration) -> list[str]:
    """The address of the Service `kubernetes`: the first of each subnet."""
    subnets = (config.cluster.get("network") or {}).get("serviceSubnets") or ["10.96.0.0/12"]
    with suppress(ValueError):
        return [str(ip_network(subnet)[1]) for subnet in subnets]
    return []


def _client(signer: KeyPair, name: str, *groups: str) -> KeyPair:
    return pki.issue(signer, common_name=name, organizations=groups, client=True, key_encipherment=True)


def _service_account(config: MachineConfiguration) -> str:
    told = (config.cluster.get("serviceAccount") or {}).get("key")
    if not told:
        raise FluobookError("the machine configuration has no cluster.serviceAccount.key")
    return base64.b64decode(str(told)).decode()


def _is_ip(text: str) -> bool:
    return text.replace(".", "").isdigit()


def _data(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
