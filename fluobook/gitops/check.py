"""`fluobook check`: every rule, applied to one repository.

A rule is a function from a `Snapshot` to findings. To add one, add it to `RULES` and plant its mistake in tests/gitops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from fluobook.errors import Rejected
from fluobook.gitops.documents import Finding, InvalidFile, Position
from fluobook.gitops.rules import applications, files, network, objects, secrets, sources
from fluobook.gitops.snapshot import Snapshot
from fluobook.gitops.tree import ROOT_PATH

if TYPE_CHECKING:
    from pathlib import Path

Rule = Callable[[Snapshot], Iterator[Finding]]

RULES: dict[str, Rule] = {
    "address": network.services_get_an_address,
    "backend": network.routes_have_backends,
    "build": files.kustomizations_build,
    "cleartext": secrets.secrets_are_encrypted,
    "duplicate": applications.objects_have_one_owner,
    "exposure": network.only_intended_services_are_exposed,
    "generator": secrets.generators_list_what_exists,
    "health": sources.health_scripts_run_and_wait,
    "keeping": applications.essentials_are_not_pruned,
    "key": secrets.keys_are_not_in_the_tree,
    "listing": files.files_are_listed,
    "mac": secrets.macs_are_intact,
    "metric": objects.metrics_exist,
    "namespace": applications.namespaces_are_created,
    "outside": objects.waves_do_not_wait_for_the_outside,
    "phase-value": files.phase_values_have_places,
    "pin": sources.versions_are_exact,
    "pod-security": objects.pod_security_matches_the_pods,
    "policy": network.namespaces_deny_by_default,
    "pool": network.pools_are_disjoint,
    "project": applications.projects_allow_their_applications,
    "reachability": network.reachability_is_as_expected,
    "recipient": secrets.recipients_are_right,
    "reference": objects.references_exist,
    "server-side": sources.large_objects_are_applied_server_side,
    "setting": sources.required_settings_are_set,
    "shape": objects.objects_match_their_schema,
    "sops-rule": secrets.creation_rules_encrypt_everything,
    "source": sources.applications_are_sound,
    "valid": objects.objects_are_valid,
    "value": sources.values_are_known,
    "wave": applications.waves_follow_dependencies,
    "wave-table": applications.wave_table_is_current,
}
"""Every rule by the name that its findings carry."""

VARIANT_RULES = (
    "address",
    "backend",
    "duplicate",
    "exposure",
    "keeping",
    "namespace",
    "outside",
    "phase-value",
    "pin",
    "project",
    "reference",
    "server-side",
    "setting",
    "source",
    "value",
    "wave",
)
"""The rules about Applications and what they deploy: a variant of the root has others than bootstrap."""


def findings(root: Path, rules: dict[str, Rule] | None = None, *, path: str = ROOT_PATH) -> list[Finding]:
    """The defects of a repository, in the order of files and lines.

    Args:
        root: the repository.
        rules: the rules to apply, by name; all of them unless given.
        path: the folder of the root Application.

    Raises:
        ToolFailed: kubectl or sops is missing.
    """
    snapshot = Snapshot(root, path)
    return sorted({finding for name, rule in (rules or RULES).items() for finding in _apply(snapshot, name, rule)})


def all_findings(root: Path) -> list[Finding]:
    """As `findings`, with the defects of each variant of the root (bootstrap-…)."""
    result = set(findings(root))
    try:
        variants = [tree.path for tree in Snapshot(root).roots if tree.path != ROOT_PATH]
    except Rejected:
        return sorted(result)  # reported already: a variant that cannot be read is not listed
    rules = {name: RULES[name] for name in VARIANT_RULES}
    for path in variants:
        result |= set(findings(root, rules, path=path))
    return sorted(result)


def _apply(snapshot: Snapshot, name: str, rule: Rule) -> Iterator[Finding]:
    """The findings of one rule; an unreadable file is a finding too, and ends the rule."""
    above = f"{snapshot.root}/"
    for finding in _findings(snapshot, rule):
        file, message = finding.file.removeprefix(above), finding.message.replace(above, "")
        yield replace(finding, rule=finding.rule or name, file=file, message=message)


def _findings(snapshot: Snapshot, rule: Rule) -> Iterator[Finding]:
    top = Position(snapshot.top)
    try:
        yield from rule(snapshot)
    except InvalidFile as error:
        yield Position(error.file, error.line).finding(f"it {error.problem}", error.remedy, "readable")
    except Rejected as error:
        yield top.finding(error.message, error.remedy, "readable")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # An object has another shape than its kind. The rule `shape` reports it.
        message = f"rule {rule.__name__} cannot be applied: {error!r}"
        yield top.finding(message, "correct the other findings first", "readable")
