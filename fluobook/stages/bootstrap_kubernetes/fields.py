"""Which field of a machine configuration a complaint is about, as far as its words report. Pure."""

from __future__ import annotations

import re

_SECTIONS = {
    "kubelet": "machine.kubelet",
    "kube-apiserver": "cluster.apiServer",
    "kube-controller-manager": "cluster.controllerManager",
    "kube-scheduler": "cluster.scheduler",
}
_FIELDS = (
    (r"flag|extra arg", "{section}.extraArgs"),
    (r"no suitable node IP", "machine.kubelet.nodeIP.validSubnets"),
    (r"Unauthorized", "cluster.token, of the node or of the control plane"),
    (r"no route to host|no such host", "cluster.controlPlane.endpoint"),
    (
        r"unknown authority|CERTIFICATE_VERIFY|x509: certificate",
        "cluster.ca, of the node or of the control plane",
    ),
    (r"audit", "cluster.apiServer.auditPolicy"),
    (r"[Aa]dmission|PodSecurity", "cluster.apiServer.admissionControl"),
    (r"encryption|secretbox|aescbc", "cluster.secretboxEncryptionSecret"),
    (r"service-account", "cluster.serviceAccount.key"),
    (r"CIDR|cidr|service-cluster-ip", "cluster.network"),
    (r"error applying manifest", "cluster.inlineManifests"),
    (r"authorization", "cluster.apiServer.authorizationConfig"),
)
_NAMED = re.compile(r"\b(?:machine|cluster)\.[a-zA-Z.]+[a-zA-Z]")


def field_of(log: str, words: str) -> str:
    """The field that a complaint is about, "" if its words do not report.

    Args:
        log: whose words they are, such as "kubelet on talos-worker-1".
        words: the complaint.
    """
    if named := _NAMED.search(words):
        return named.group()
    section = next((path for program, path in _SECTIONS.items() if program in words), "")
    section = section or next(
        (path for program, path in _SECTIONS.items() if log.startswith(program)), "cluster.apiServer"
    )
    return next((field.format(section=section) for pattern, field in _FIELDS if re.search(pattern, words)), "")
