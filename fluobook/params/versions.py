"""Versions: the pins, and which of them are compatible (params/versions.yaml)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import Field, ValidationError

from fluobook.errors import ParamsError
from fluobook.params.fields import DERIVED, Model, Text, Version, matching
from fluobook.params.problems import problems_of
from fluobook.params.reading import read

if TYPE_CHECKING:
    from pathlib import Path

Contract = Literal["1.12", "1.13", "1.14"]
"""Version contracts of Talos: which documents a machine configuration consists of."""
CONTRACTS: tuple[str, ...] = get_args(Contract)
"""The version contracts, oldest first."""
Minor = Annotated[str, matching(r"\d{1,4}\.\d{1,4}", "must be major.minor", 'quoted, such as "1.35"')]


class Versions(Model):
    """Versions of the platform's base."""

    contract: Annotated[Contract, DERIVED]
    """Version contract of the machine configurations, such as 1.13: the Talos version that the cluster was made with.
    It stays when Talos is upgraded; null takes the pin, or an older Talos' own."""
    migrates_from: Contract | None = None
    """The older contract that nodes may still have while stage 2 moves them, one after the other, to `contract`; null:
    stage 2 refuses to change the contract of a node."""
    talos: Annotated[Version, DERIVED]
    """Version of Talos, such as 1.13.9; null takes the pin."""
    kubernetes: Annotated[Version, DERIVED]
    """Version of Kubernetes, such as 1.35.4; null takes the pin."""


class KubernetesRange(Model):
    """The Kubernetes minors that a component supports, both ends included."""

    oldest: Minor
    """The oldest minor."""
    newest: Minor | None = None
    """The newest minor; null: its makers name none."""


class ProxmoxRow(Model):
    """What differs between majors of Proxmox VE."""

    agent_privilege: Text
    """The privilege that reading from the guest agent needs."""


class KsopsRow(Model):
    """What differs between minors of KSOPS."""

    install: tuple[str, ...]
    """The command that installs it from its image into a shared volume."""


class Matrix(Model):
    """Which versions are compatible."""

    kubernetes: dict[str, dict[Minor, KubernetesRange]]
    """For each component and its minor: the Kubernetes minors that it supports."""
    proxmox: dict[str, ProxmoxRow]
    """For each major of Proxmox VE that is supported."""
    ksops: dict[Minor, KsopsRow]
    """For each minor of KSOPS that is supported."""
    etcd: dict[Minor, Minor] = Field(default_factory=dict)
    """For each minor of Talos that of its etcd, whose data an older one does not read."""
    denied: dict[str, dict[Version, str]] = Field(default_factory=dict)
    """For each component, the versions that are not installed, and why."""

    def refusal(self, component: str, version: str, kubernetes: str) -> str:
        """Why `component` in `version` does not support Kubernetes `kubernetes`, with the row; "" if it does.

        Args:
            component: "talos", "cilium", "argo-cd"…, a key of the matrix.
            version: such as "1.13.9" or "v1.20.2".
            kubernetes: such as "1.35.4".
        """
        rows = self.kubernetes.get(component, {})
        row = rows.get(minor_of(version))
        if row is None:
            return f"{component} {minor_of(version)} has no row in params/versions.yaml (it has {', '.join(rows)})"
        if not ordered(row.oldest) <= ordered(minor_of(kubernetes)) <= ordered(row.newest or kubernetes):
            return (
                f"Kubernetes {kubernetes} is not compatible with {component} {version}: row {component} "
                f"{minor_of(version)} of params/versions.yaml allows {row.oldest} "
                + (f"to {row.newest}" if row.newest else "and newer")
            )
        return ""

    def supporting(self, component: str, kubernetes: str) -> list[str]:
        """The minors of a component whose rows have a version of Kubernetes."""
        rows = self.kubernetes.get(component, {})
        return [minor for minor in rows if not self.refusal(component, minor, kubernetes)]


class Supported(Model):
    """params/versions.yaml: the pins and the matrix."""

    pins: Versions
    """The versions that are installed unless the parameters name others."""
    matrix: Matrix
    """Which versions are compatible."""
    support: dict[str, dict[Minor, str]] = Field(default_factory=dict)
    """For each component and its minor: the day on which its support ends, or what ends it."""


def minor_of(version: str) -> str:
    """major.minor of a version, with or without a leading v."""
    return ".".join(version.removeprefix("v").split(".")[:2])


def major_of(version: str) -> str:
    """The major of a version."""
    return version.removeprefix("v").split(".")[0]


def load_supported(root: Path) -> Supported:
    """The pins and the matrix of a repository.

    Raises:
        ParamsError: the file is missing or invalid.
    """
    path = root / "params" / "versions.yaml"
    document = read(path)
    try:
        return Supported.model_validate(document)
    except ValidationError as error:
        problems = tuple(map(str, problems_of(error, Supported, document)))
        raise ParamsError(f"{path} is invalid", problems=problems) from None


def pins(root: Path) -> dict[str, str]:
    """The pins of a repository: component and version.

    Raises:
        ParamsError: params/versions.yaml is missing or invalid.
    """
    return load_supported(root).pins.model_dump(exclude_none=True)


def ordered(version: str) -> tuple[int, ...]:
    """A version such as "1.14" or "v1.14.0-rc.1" for comparison; what follows a hyphen is left out."""
    return tuple(int(part) for part in version.removeprefix("v").split("-")[0].split("."))
