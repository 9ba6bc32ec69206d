"""Machine configurations as `talosctl gen config` generates them, for the version contract of Talos 1.13.

Pure: the same arguments give the same documents, and this module knows neither the platform nor which versions are
compatible. What the platform adds is in `fluobook.machine.node` and in talos/patches.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fluobook.files import packaged
from fluobook.machine.documents import Document
from fluobook.machine.pki import KeyPair, encode_pem
from fluobook.machine.secrets import SecretsBundle

_REGISTRY = "registry.k8s.io"


@dataclass(frozen=True)
class Documents:
    """The configurations of a cluster's two kinds of nodes; in each list the v1alpha1 document comes first."""

    controlplane: list[Document] = field(repr=False)
    worker: list[Document] = field(repr=False)

    def of(self, role: str) -> list[Document]:
        """The documents for "controlplane" or "worker"."""
        return {"controlplane": self.controlplane, "worker": self.worker}[role]


def generate(
    name: str,
    endpoint: str,
    kubernetes_version: str,
    secrets: SecretsBundle | Mapping[str, Any],
    install_disk: str = "",
    *,
    install_image: str = "",
) -> Documents:
    """The configurations of control planes and workers, as `talosctl gen config` makes them without further options.

    Args:
        name: name of the cluster.
        endpoint: URL of the Kubernetes API, such as https://10.10.0.10:6443.
        kubernetes_version: such as 1.35.4; "" leaves the images to Talos.
        secrets: the cluster's secrets, or the bundle as parsed YAML.
        install_disk: such as /dev/sda; "" leaves it out.
        install_image: the installer's image; "" leaves it to Talos.

    Raises:
        ParamsError: the bundle is incomplete.
    """
    bundle = secrets if isinstance(secrets, SecretsBundle) else SecretsBundle.parse(secrets)
    version, constants = kubernetes_version.removeprefix("v"), copy.deepcopy(packaged(__package__, "generated.yaml"))
    machine, cluster = constants["machine"], constants["cluster"]
    machine |= {"token": bundle.trustd_token, "ca": _certificate_only(bundle.talos)}
    machine["kubelet"] = {**_image("ghcr.io/siderolabs/kubelet", version), **machine["kubelet"]}
    machine["install"] = {**_present({"disk": install_disk, "image": install_image}), **machine["install"]}
    cluster |= {
        "id": bundle.cluster_id,
        "secret": bundle.cluster_secret,
        "controlPlane": {"endpoint": endpoint},
        "clusterName": name,
        "token": bundle.bootstrap_token,
        "ca": _certificate_only(bundle.kubernetes),
    }
    own_machine = {**constants["controlplane"]["machine"], "ca": bundle.talos.to_base64()}
    own_cluster = _controlplane_cluster(bundle, version, constants["controlplane"]["cluster"])
    head, others = constants["head"], constants["others"]
    first = {**head, "machine": {**machine, **own_machine}, "cluster": {**cluster, **own_cluster}}
    # Copied, so that the two share nothing that a caller may change.
    return Documents(
        copy.deepcopy([first, *others]), copy.deepcopy([{**head, "machine": machine, "cluster": cluster}, *others])
    )


def _controlplane_cluster(bundle: SecretsBundle, version: str, constants: Document) -> Document:
    encryption = {
        "secretboxEncryptionSecret": bundle.secretbox_encryption_secret,
        "aescbcEncryptionSecret": bundle.aescbc_encryption_secret,
    }
    return {
        **_present(encryption),
        "ca": bundle.kubernetes.to_base64(),
        "aggregatorCA": bundle.aggregator.to_base64(),
        "serviceAccount": {"key": encode_pem(bundle.service_account_key)},
        "apiServer": {**_image(f"{_REGISTRY}/kube-apiserver", version), **constants["apiServer"]},
        "controllerManager": _image(f"{_REGISTRY}/kube-controller-manager", version),
        "proxy": _image(f"{_REGISTRY}/kube-proxy", version),
        "scheduler": _image(f"{_REGISTRY}/kube-scheduler", version),
        "etcd": {"ca": bundle.etcd.to_base64()},
    }


def _image(repository: str, version: str) -> dict[str, str]:
    return {"image": f"{repository}:v{version}"} if version else {}


def _certificate_only(pair: KeyPair) -> dict[str, str]:
    return {**pair.to_base64(), "key": ""}


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}
