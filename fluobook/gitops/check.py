"""`fluobook check`: every rule, applied to one repository.

A rule is a function from a `Snapshot` to findings. To add one, add it to `RULES` and plant its mistake in tests/gitops.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from fluobook.errors import BadFile, NotFound, Rejected
from fluobook.files import LARGEST_SEARCHED, not_regular, parse_yaml, read_text, refuse_conflicts, require_json
from fluobook.gitops import components, documents, kustomization, schemas
from fluobook.gitops.documents import Document, Finding, Incomplete, InvalidFile, Position
from fluobook.gitops.rules import applications, files, network, objects, references, secrets
from fluobook.gitops.snapshot import Snapshot, UnsoundTable
from fluobook.gitops.tree import GONE, ROOT_PATH

_VARYING = re.compile(r"[:;].*| and \d+ more.*", re.DOTALL)
"""What differs in findings about one mistake: what they count, and what they compare it with."""
Rule = Callable[[Snapshot], Iterator[Finding]]

RULES: dict[str, Rule] = {
    "address": network.services_get_an_address,
    "approver": files.approver_and_stage_4_agree,
    "backup": secrets.backups_are_whole,
    "build": files.kustomizations_build,
    "cleartext": secrets.secrets_are_encrypted,
    "cpu": objects.cpus_have_what_workloads_need,
    "door": network.opened_ports_are_served,
    "duplicate": applications.objects_have_one_owner,
    "exposure": network.only_intended_services_are_exposed,
    "generator": secrets.generators_list_what_exists,
    "hash": applications.names_stay_where_nothing_is_pruned,
    "health": files.health_scripts_run_and_wait,
    "keeping": applications.data_outlives_applications,
    "ignored": applications.ignored_differences_exist,
    "key": secrets.keys_are_not_in_the_tree,
    "leftover": components.nothing_is_left_over,
    "listing": files.files_are_listed,
    "mac": secrets.macs_are_intact,
    "metric": objects.metrics_exist,
    "namespace": applications.namespaces_are_created,
    "node": objects.pods_find_a_node,
    "outside": objects.waves_do_not_wait_for_the_outside,
    "phase-value": files.phase_values_have_places,
    "pin": files.versions_are_exact,
    "pod-security": objects.pod_security_matches_the_pods,
    "policy": network.namespaces_deny_by_default,
    "pool": network.pools_are_disjoint,
    "project": applications.projects_allow_their_applications,
    "patch": files.talos_accepts_the_patches,
    "quota": objects.namespaces_admit_their_pods,
    "reachability": network.reachability_is_as_expected,
    "receiver": secrets.receivers_have_credentials,
    "recipient": secrets.recipients_are_right,
    "reference": references.references_exist,
    "server-side": files.large_objects_are_applied_server_side,
    "setting": files.required_settings_are_set,
    "shape": objects.objects_match_their_schema,
    "sops-rule": secrets.creation_rules_encrypt_everything,
    "source": files.applications_are_sound,
    "support": applications.network_and_storage_support_kubernetes,
    "valid": objects.objects_are_valid,
    "value": files.values_are_known,
    "volume": applications.volumes_can_be_mounted,
    "wave": applications.waves_follow_dependencies,
    "wave-table": applications.wave_table_is_current,
}
"""Every rule by the name that its findings carry."""

ABOUT_THE_WHOLE = {
    "address", "approver", "generator", "ignored", "leftover", "listing", "namespace", "phase-value", "pod-security",
    "policy", "project", "reachability", "reference", "wave", "wave-table",
}  # fmt: skip
"""The rules that report what is missing: their findings are consequences where a part of the tree cannot be read."""

IN_ONE_FILE = {"cleartext", "key", "pin", "setting", "shape", "valid"}
"""The rules that look at one file or object at a time: they are applied beside a file that cannot be read too."""

ABOUT_CREATION_RULES = {"recipient", "sops-rule"}
"""The rules that need a sound .sops.yaml."""

CONSEQUENCES = (
    ("*", "", "readable", "", "line"),
    ("*", "", "shape", "", "line"),
    ("readable", "cannot be applied", "shape", "", "file"),
    ("*", "", "key", "", "line"),
    ("mac", "", "cleartext", "", "file"),
    ("mac", "", "shape", "", "file"),
    ("cleartext", "SOPS", "shape", "sops", "file"),
    ("recipient", "", "shape", "sops", "file"),
    ("sops-rule", "", "shape", "sops", "file"),
    ("reference", "", "shape", "", "object"),
    ("reachability", "", "shape", "", "object"),
    ("source", "", "shape", "", "object"),
    ("phase-value", "has nothing at", "shape", ", not a", "tree"),
    ("listing", "names its folder", "source", "which does not exist", "tree"),
    ("generator", "no KSOPS generator", "generator", "generates nothing", "tree"),
    ("door", "where nothing listens", "reachability", "expects it open", "object"),
    ("project", "", "namespace", "nothing creates", "line"),
    ("setting", "", "value", "has no value", "file"),
    ("*", "", "value", "has no chart", "line"),
    ("reachability", "has no pod of namespace", "value", "has no chart", "tree"),
    ("wave", "which no Application brings", "value", "has no chart", "tree"),
    ("address", "its pool", "exposure", "", "file"),
    ("reachability", "no row expects it", "policy", "", "file"),
    ("reachability", "no row expects it", "reachability", "which is no pod", "tree"),
    ("reachability", "no row expects it", "door", "the row opens", "tree"),
    ("generator", "is not listed", "generator", "does not exist", "file"),
    ("build", "already registered id", "duplicate", "", "tree"),
    ("reference", "Secret fluodata-backup", "backup", "fluodata/fluodata-backup", "tree"),
)
"""A rule and words of its findings that follow from a finding of another rule with other words, in the same line,
object, file or tree."""

READ = (".sops.yaml", "cluster-gitops", "params", "site", "talos")
"""The files and folders of a repository that rules read."""

ABOUT_FILES = {
    "build", "cleartext", "generator", "key", "listing", "mac", "recipient", "shape", "sops-rule", "valid", "wave-table"
}  # fmt: skip
"""The rules whose findings are the same under every root; the others are about the tree of one root."""


def findings(
    root: Path,
    rules: Mapping[str, Rule] = RULES,
    *,
    path: str = ROOT_PATH,
    without: Iterable[str] = (),
    has: Iterable[str] = (),
) -> list[Finding]:
    """The defects of a repository under one root, in the order of files and lines.

    Args:
        root: the repository.
        rules: the rules to apply, by name.
        path: the folder of the root Application.
        without: the components that are left out.
        has: what the platform has of what Applications are only deployed with.

    Raises:
        ToolFailed: kubectl or sops is missing.
    """
    broken = unreadable(root)
    applied = _applied(Snapshot(root, path, tuple(without), tuple(has)), _beside(broken, rules), broken)
    return _causes({*broken, *applied}, root)


def all_findings(root: Path) -> list[Finding]:
    """As `findings`, under each root that a params file uses; what is not wrong under all of them names its roots."""
    broken, default = unreadable(root), Snapshot(root)
    rules = _beside(broken, RULES)
    about_trees = {name: rule for name, rule in rules.items() if name not in ABOUT_FILES}
    result = {*broken, *_applied(default, {name: rule for name, rule in rules.items() if name in ABOUT_FILES}, broken)}
    reported: dict[Finding, list[str]] = {}
    for variant in default.variants:
        has_root = (root / variant.path / kustomization.NAME).exists()
        for finding in _applied(variant, about_trees if has_root else {"phase-value": RULES["phase-value"]}, broken):
            reported.setdefault(finding, []).append(str(variant))
    alike: dict[tuple[str, int, str, str], list[Finding]] = {}
    for finding in reported:
        alike.setdefault((finding.file, finding.line, finding.rule, _VARYING.sub("", finding.message)), []).append(
            finding
        )
    for group in alike.values():
        paths = [path for finding in group for path in reported[finding]]
        for finding in group[:1] if len(set(paths)) == len(paths) else group:
            shared = list(dict.fromkeys(paths if len(set(paths)) == len(paths) else reported[finding]))
            is_clear = len(shared) == len(default.variants) or shared[0] in finding.message
            result.add(finding if is_clear else replace(finding, message=f"{finding.message} (in {', '.join(shared)})"))
    return _causes(result, root)


def _causes(findings: set[Finding], root: Path) -> list[Finding]:
    """The findings without those that follow from another, in the order of files and lines."""
    causes: dict[str, list[Finding]] = {}
    for finding in findings:
        causes.setdefault(finding.rule, []).append(finding)

    def follows(finding: Finding) -> bool:
        return any(
            cause_words in cause.message
            and (where == "tree" or cause.file == finding.file)
            and (where != "line" or cause.line == finding.line)
            and (where != "object" or _object(root, cause) == _object(root, finding))
            and cause is not finding
            for rule, words, other, cause_words, where in CONSEQUENCES
            if rule == finding.rule or (rule == "*" and other != finding.rule)
            if words in finding.message
            for cause in causes.get(other, ())
        )

    return sorted(finding for finding in findings if not follows(finding))


def _object(root: Path, finding: Finding) -> int:
    """The number of the document in its file that a finding is about."""
    lines = (root / finding.file).read_text(errors="replace").splitlines()[: finding.line]
    return sum(line.startswith("---") for line in lines)


def unreadable(root: Path) -> list[Finding]:
    """The files that the rules, kustomize or sops would not survive; with one, only `IN_ONE_FILE` is applied."""
    result = []
    for file in (file for name in READ for file in _files(root / name)):
        try:
            if file.suffix in (".yaml", ".yml"):
                _require_documents(file)
            elif file.suffix == ".json":
                _require_json(read_text(file))
            elif not file.is_file():
                raise not_regular(file)
            elif file.suffix != ".md":
                refuse_conflicts(read_text(file, largest=LARGEST_SEARCHED, errors="replace"), file)
        except BadFile as error:
            message = f"it {error.problem}"
            result.append(Position(file, error.line).finding(message, error.remedy, "readable"))
    above = f"{root}/"
    return sorted(replace(finding, file=finding.file.removeprefix(above)) for finding in result)


def _require_documents(file: Path) -> None:
    """Refuse a YAML file that cannot be read, and a table or kustomization that is no mapping."""
    text = read_text(file)
    if not documents.parsed(text) and schemas.is_table(file.name):
        is_empty = not any(data is not None for data in parse_yaml(text, file))
        raise BadFile(
            file, "is empty" if is_empty else "is not a mapping", line=1, remedy="write one, or delete the file"
        )


@lru_cache(maxsize=256)
def _require_json(text: str) -> None:
    require_json(text, "the file")


def _beside(broken: list[Finding], rules: Mapping[str, Rule]) -> Mapping[str, Rule]:
    """The rules to apply where some files cannot be read."""
    return {name: rule for name, rule in rules.items() if name in IN_ONE_FILE} if broken else rules


def _files(top: Path) -> Iterator[Path]:
    """Every file below a folder, whatever it is; folders behind links are left out. A file is itself."""
    if top.is_dir() and not top.is_symlink():
        for folder, folders, names in os.walk(top):
            yield from (Path(folder) / name for name in [*names, *(n for n in folders if n.endswith(".yaml"))])
    elif top.is_symlink() or top.exists():
        yield top


def _applied(snapshot: Snapshot, rules: Mapping[str, Rule], broken: Iterable[Finding] = ()) -> set[Finding]:
    """The findings of the rules and of the reader, without those that follow from another.

    They follow from a value that was emptied, a part of the tree that is missing, or a file that cannot be read.
    """
    applied = ((name, finding) for name, rule in rules.items() for finding in _apply(snapshot, rule))
    result = {replace(finding, rule=finding.rule or name) for name, finding in applied}
    result |= {_refusal(error) for error in snapshot.reader.refused.values()}
    emptied = {(str(file), line) for file, line in snapshot.reader.emptied}
    lists = {str(file) for file, _ in snapshot.reader.emptied if file.name == kustomization.NAME}
    refused = {(str(error.file), error.line) for error in snapshot.reader.refused.values() if error.line}
    is_whole = not lists and not any(isinstance(e, Incomplete) for e in snapshot.reader.refused.values())
    is_whole = is_whole and not any(finding.message.endswith(GONE) for finding in result if finding.rule == "source")
    above = f"{snapshot.root}/"
    unread = {above + finding.file for finding in broken}
    creation_rules = f"{above}.sops.yaml"
    about = {finding.file for finding in result if finding.rule in ("shape", "readable")}
    unsound = ABOUT_CREATION_RULES if creation_rules in about else set()
    return {
        replace(
            finding,
            file=finding.file.removeprefix(above),
            message=finding.message.replace(above, ""),
            remedy=finding.remedy.replace(above, ""),
        )
        for finding in result
        if finding.rule == "shape" or (finding.file, finding.line) not in emptied
        if finding.rule in ("shape", "readable") or (finding.file, finding.line) not in refused
        if is_whole or finding.rule not in ABOUT_THE_WHOLE
        if finding.rule not in unsound and finding.file not in unread
    }


def _refusal(error: InvalidFile | BadFile) -> Finding:
    file = error.file if isinstance(error, InvalidFile) else Path(error.path)
    return Position(file, error.line).finding(f"it {error.problem}", error.remedy, "readable")


def _apply(snapshot: Snapshot, rule: Rule) -> Iterator[Finding]:
    """The findings of one rule; an unreadable file is a finding too, and ends the rule."""
    top = Position(snapshot.top)
    try:
        yield from rule(snapshot)
    except UnsoundTable:
        return
    except (InvalidFile, BadFile) as error:
        yield _refusal(error)
    except (Rejected, NotFound) as error:
        yield _culprit(error, top).finding(error.message, error.remedy, "readable")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        message = f"rule {rule.__name__} cannot be applied: {type(error).__name__}"
        yield _culprit(error, top).finding(message, "correct the other findings first", "readable")


def _culprit(error: Exception, otherwise: Position) -> Position:
    """The document that a rule was about when it failed: the innermost one among the variables of its functions."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for value in frame.f_locals.values():
            if document := value if isinstance(value, Document) else getattr(value, "document", None):
                return document.at() if isinstance(document, Document) else otherwise
    return otherwise
