"""`fluobook check`: every rule, applied to one repository.

A rule is a function from a `Snapshot` to findings. To add one, add it to `RULES` and plant its mistake in tests/gitops.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fluobook.errors import BadFile, Rejected
from fluobook.files import not_regular, parse_json, read_text, require_yaml
from fluobook.gitops import components
from fluobook.gitops.documents import Finding, InvalidFile, Position
from fluobook.gitops.rules import applications, files, network, objects, secrets, sources
from fluobook.gitops.snapshot import Snapshot
from fluobook.gitops.tree import ROOT_PATH

Rule = Callable[[Snapshot], Iterator[Finding]]

RULES: dict[str, Rule] = {
    "address": network.services_get_an_address,
    "approver": sources.approver_and_stage_4_agree,
    "backend": network.routes_have_backends,
    "build": files.kustomizations_build,
    "cleartext": secrets.secrets_are_encrypted,
    "cpu": objects.cpus_have_what_workloads_need,
    "duplicate": applications.objects_have_one_owner,
    "exposure": network.only_intended_services_are_exposed,
    "generator": secrets.generators_list_what_exists,
    "health": sources.health_scripts_run_and_wait,
    "keeping": applications.essentials_are_not_pruned,
    "key": secrets.keys_are_not_in_the_tree,
    "leftover": components.nothing_is_left_over,
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
    "patch": files.talos_accepts_the_patches,
    "reachability": network.reachability_is_as_expected,
    "receiver": secrets.receivers_have_credentials,
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

READ = (".sops.yaml", "cluster-gitops", "params", "site", "talos")
"""The files and folders of a repository that rules read."""

ABOUT_FILES = {
    "build", "cleartext", "generator", "key", "listing", "mac", "recipient", "shape", "sops-rule", "valid", "wave-table"
}  # fmt: skip
"""The rules whose findings are the same under every root; the others are about the tree of one root."""


def findings(
    root: Path, rules: Mapping[str, Rule] = RULES, *, path: str = ROOT_PATH, without: Iterable[str] = ()
) -> list[Finding]:
    """The defects of a repository under one root, in the order of files and lines.

    Args:
        root: the repository.
        rules: the rules to apply, by name.
        path: the folder of the root Application.
        without: the components that are left out.

    Raises:
        ToolFailed: kubectl or sops is missing.
    """
    return unreadable(root) or sorted(_applied(Snapshot(root, path, tuple(without)), rules))


def all_findings(root: Path) -> list[Finding]:
    """As `findings`, under each root that a params file uses; what is not wrong under all of them names its roots."""
    if findings := unreadable(root):
        return findings
    default = Snapshot(root)
    about_trees = {name: rule for name, rule in RULES.items() if name not in ABOUT_FILES}
    result = _applied(default, {name: RULES[name] for name in ABOUT_FILES})
    reported: dict[Finding, list[str]] = {}
    for variant in default.variants:
        for finding in _applied(variant, about_trees):
            reported.setdefault(finding, []).append(str(variant))
    for finding, paths in reported.items():
        is_clear = len(paths) == len(default.variants) or paths[0] in finding.message
        result.add(finding if is_clear else replace(finding, message=f"{finding.message} (in {', '.join(paths)})"))
    return sorted(result)


def unreadable(root: Path) -> list[Finding]:
    """The files that the rules, kustomize or sops would not survive; with one of them, no rule is applied."""
    result = []
    for file in (file for name in READ for file in _files(root / name)):
        try:
            if file.suffix in (".yaml", ".yml"):
                require_yaml(read_text(file), file)
            elif file.suffix == ".json":
                parse_json(read_text(file), file)
            elif not file.is_file():
                raise not_regular(file)
        except BadFile as error:
            message = f"it {error.problem}"
            result.append(Position(file, error.line).finding(message, error.remedy, "readable"))
    above = f"{root}/"
    return sorted(replace(finding, file=finding.file.removeprefix(above)) for finding in result)


def _files(top: Path) -> Iterator[Path]:
    """Every file below a folder, whatever it is; folders behind links are left out. A file is itself."""
    if top.is_dir() and not top.is_symlink():
        for folder, folders, names in os.walk(top):
            yield from (Path(folder) / name for name in [*names, *(n for n in folders if n.endswith(".yaml"))])
    elif top.is_symlink() or top.exists():
        yield top


def _applied(snapshot: Snapshot, rules: Mapping[str, Rule]) -> set[Finding]:
    return {finding for name, rule in rules.items() for finding in _apply(snapshot, name, rule)}


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
    except BadFile as error:
        yield Position(Path(error.path), error.line).finding(f"it {error.problem}", error.remedy, "readable")
    except Rejected as error:
        yield top.finding(error.message, error.remedy, "readable")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # An object has another shape than its kind. The rule `shape` reports it.
        message = f"rule {rule.__name__} cannot be applied: {error!r}"
        yield top.finding(message, "correct the other findings first", "readable")
