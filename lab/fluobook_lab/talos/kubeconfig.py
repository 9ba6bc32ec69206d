"""The administrator's kubeconfig that a control plane makes from the cluster's certificate authority."""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from typing import TYPE_CHECKING

import yaml

from fluobook.machine.pki import issue, openssl_key
from fluobook_lab.talos.config import pair

if TYPE_CHECKING:
    from fluobook_lab.talos.config import MachineConfiguration


def admin_kubeconfig(config: MachineConfiguration) -> bytes:
    """A `.tar.gz` with one file `kubeconfig`, as the Kubeconfig RPC sends it."""
    text = yaml.safe_dump(_document(config), sort_keys=False).encode()
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        entry = tarfile.TarInfo("kubeconfig")
        entry.size, entry.mode = len(text), 0o600
        tar.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def _document(config: MachineConfiguration) -> dict[str, object]:
    authority, name = pair(config.cluster.get("ca")), config.cluster_name
    admin = issue(authority, common_name="admin", organizations=["system:masters"], client=True, key_encipherment=True)
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": config.endpoint, "certificate-authority-data": _base64(authority.crt)}}
        ],
        "users": [
            {
                "name": f"admin@{name}",
                "user": {
                    "client-certificate-data": _base64(admin.crt),
                    "client-key-data": _base64(openssl_key(admin.key)),
                },
            }
        ],
        "contexts": [
            {"name": f"admin@{name}", "context": {"cluster": name, "namespace": "default", "user": f"admin@{name}"}}
        ],
        "current-context": f"admin@{name}",
    }


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
