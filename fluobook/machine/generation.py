"""Machine configurations as `talosctl gen config` generates them, for the version contracts of Talos 1.12 to 1.14.

Pure: the same arguments give the same documents, and this module knows neither the platform nor which versions are
compatible. What the platform adds is in `fluobook.machine.node` and in talos/patches.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fluobook.errors import ParamsError
from fluobook.files import packaged
from fluobook.machine import contracts
from fluobook.machine.documents import Document
from fluobook.machine.merging import merge
from fluobook.machine.pki import KeyPair, encode_pem
from fluobook.machine.secrets import SecretsBundle
from fluobook.params.versions import CONTRACTS

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
    contract: str = "1.13",
) -> Documents:
    """The configurations of control planes and workers, as `talosctl gen config` makes them without further options.

    Args:
        name: name of the cluster.
        endpoint: URL of the Kubernetes API, such as https://10.10.0.10:6443.
        kubernetes_version: such as 1.35.4; "" leaves the images to Talos.
        secrets: the cluster's secrets, or the bundle as parsed YAML.
        install_disk: such as /dev/sda; "" leaves it out.
        install_image: the installer's image; "" leaves it to Talos.
        contract: the version contract, one of `fluobook.params.versions.CONTRACTS`.

    Raises:
        ParamsError: the bundle is incomplete, or the contract is unknown.
    """
    if contract not in CONTRACTS:
        raise ParamsError(f"there is no version contract {contract}; known are {', '.join(CONTRACTS)}")
    bundle = secrets if isinstance(secrets, SecretsBundle) else SecretsBundle.parse(secrets)
    version = kubernetes_version.removeprefix("v")
    worker = {
        "machine": {
            "token": bundle.trustd_token,
            "ca": _certificate_only(bundle.talos),
            **_accepted(bundle, "talos"),
            "kubelet": _image("ghcr.io/siderolabs/kubelet", version),
        },
        "cluster": {
            "id": bundle.cluster_id,
            "secret": bundle.cluster_secret,
            "controlPlane": {"endpoint": endpoint},
            "clusterName": name,
            "token": bundle.bootstrap_token,
            "ca": _certificate_only(bundle.kubernetes),
            **_accepted(bundle, "kubernetes"),
        },
    }
    controlplane = {
        "machine": {**worker["machine"], "ca": bundle.talos.to_base64()},
        "cluster": {**worker["cluster"], **_controlplane_cluster(bundle, version)},
    }
    if install := _present({"disk": install_disk, "image": install_image}):
        for values in (controlplane, worker):
            values["machine"]["install"] = install
    if contracts.has_documents(contract):
        return Documents(
            merge(contracts.generated("controlplane"), contracts.split(controlplane)),
            merge(contracts.generated("worker"), contracts.split(worker)),
        )
    return Documents(
        merge(_constants("controlplane", contract), controlplane), merge(_constants("worker", contract), worker)
    )


def _constants(role: str, contract: str) -> list[Document]:
    """What every configuration of a role has, up to contract 1.13."""
    constants = copy.deepcopy(packaged(__package__, "generated.yaml"))
    main = {**constants["head"], "machine": constants["machine"], "cluster": constants["cluster"]}
    if contract == CONTRACTS[0]:
        main["machine"]["network"] = {}
    return merge([main, *constants["others"]], constants["controlplane"] if role == "controlplane" else [])


def _controlplane_cluster(bundle: SecretsBundle, version: str) -> Document:
    encryption = {
        "secretboxEncryptionSecret": bundle.secretbox_encryption_secret,
        "aescbcEncryptionSecret": bundle.aescbc_encryption_secret,
    }
    return {
        **_present(encryption),
        "ca": bundle.kubernetes.to_base64(),
        "aggregatorCA": bundle.aggregator.to_base64(),
        "serviceAccount": {"key": encode_pem(bundle.service_account_key)},
        "apiServer": _image(f"{_REGISTRY}/kube-apiserver", version),
        "controllerManager": _image(f"{_REGISTRY}/kube-controller-manager", version),
        "proxy": _image(f"{_REGISTRY}/kube-proxy", version),
        "scheduler": _image(f"{_REGISTRY}/kube-scheduler", version),
        "etcd": {"ca": bundle.etcd.to_base64()},
    }


def _accepted(bundle: SecretsBundle, name: str) -> dict[str, Any]:
    """The authorities that are accepted beside the one that issues, while it is rotated."""
    accepted = [{"crt": encode_pem(crt)} for crt in bundle.accepted(name)]
    return {"acceptedCAs": accepted} if accepted else {}


def _image(repository: str, version: str) -> dict[str, str]:
    return {"image": f"{repository}:v{version}"} if version else {}


def _certificate_only(pair: KeyPair) -> dict[str, str]:
    return {**pair.to_base64(), "key": ""}


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}
