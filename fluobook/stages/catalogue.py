"""All stages, in their order."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fluobook.errors import UsageError
from fluobook.stages import (
    apply_talos_config,
    approve_csrs,
    bootstrap_kubernetes,
    certificates,
    create_vms,
    diagnose,
    drift,
    etcd_snapshot,
    health,
    host_network,
    install_argocd,
    nodes,
    observe,
    preflight,
    privileged_namespaces,
    restore,
    root_application,
    secrets,
    sops_age_key,
    teardown,
    upgrade_kubernetes,
    upgrade_talos,
)
from fluobook.stages.core.stage import Stage

STAGES: tuple[Stage, ...] = (
    preflight.STAGE,
    host_network.STAGE,
    create_vms.STAGE,
    apply_talos_config.STAGE,
    bootstrap_kubernetes.STAGE,
    approve_csrs.STAGE,
    privileged_namespaces.STAGE,
    sops_age_key.STAGE,
    install_argocd.STAGE,
    root_application.STAGE,
    observe.STAGE,
)
"""The bring-up."""

DAY_TWO: tuple[Stage, ...] = (
    secrets.STAGE,
    health.STAGE,
    upgrade_talos.STAGE,
    upgrade_kubernetes.STAGE,
    nodes.STAGE,
    etcd_snapshot.STAGE,
    restore.STAGE,
    certificates.STAGE,
    drift.stage(STAGES),
    teardown.STAGE,
    diagnose.stage(STAGES),
)
"""What is done now and then on a platform that stands; no run comes to these by itself."""


def numbered(names: Iterable[str]) -> tuple[Stage, ...]:
    """The stages of these names or numbers, each once, in their order.

    Raises:
        UsageError: there is none of that name.
    """
    wanted = {find(name).name for name in names}
    return tuple(stage for stage in (*STAGES, *DAY_TWO) if stage.name in wanted)


def find(name: str) -> Stage:
    """The stage of a name ("create-vms"), a number ("1") or a notebook ("01_create_vms", with or without its folder).

    Raises:
        UsageError: there is none; the message names one with a similar name.
    """
    stages = (*STAGES, *DAY_TWO)
    notebook = f"{name.rpartition('/')[2].removesuffix('.ipynb')}.ipynb"
    for stage in stages:
        if name in (stage.name, stage.label, f"{stage.number:02d}{stage.suffix}") or notebook == stage.notebook:
            return stage
    known = [stage.name for stage in stages]
    similar = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1)
    hint = f"did you mean {similar[0]!r}? " if similar else ""
    raise UsageError(f"there is no stage {name!r}", remedy=f"{hint}Stages are {', '.join(known)}")
