"""`fluobook check`: every rule over one repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.errors import Rejected
from fluobook.gitops.documents import Misplaced
from fluobook.gitops.finding import Finding, Place
from fluobook.gitops.look import Look
from fluobook.gitops.rules import OF_A_VARIANT, RULES
from fluobook.gitops.tree import ROOT_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluobook.gitops.rules import Rule


def findings(root: Path, rules: dict[str, Rule] | None = None, *, path: str = ROOT_PATH) -> list[Finding]:
    """What is wrong in a repository, in the order of files and lines; empty for a clean one.

    Args:
        root: the repository.
        rules: the rules to follow, by name; all of them unless given.
        path: the folder of the root Application.

    Raises:
        ToolFailed: kubectl or sops is missing.
    """
    look = Look(root, path)
    return sorted({finding for rule in (rules or RULES).values() for finding in _of_rule(look, rule)})


def all_findings(root: Path) -> list[Finding]:
    """As `findings`, and what is wrong in the variants of the root alone (bootstrap-…)."""
    found = set(findings(root))
    try:
        others = [tree.path for tree in Look(root).roots if tree.path != ROOT_PATH]
    except Rejected:
        return sorted(found)  # told already: a variant that cannot be read is not listed
    rules = {name: rule for name, rule in RULES.items() if name in OF_A_VARIANT}
    for path in others:
        found |= set(findings(root, rules, path=path))
    return sorted(found)


def _of_rule(look: Look, rule: Rule) -> Iterator[Finding]:
    """The rule's findings; a file that cannot be read is a finding too, and keeps the rule from going on."""
    try:
        yield from rule(look)
    except Misplaced as error:
        yield Place(look.root, error.file, error.line).finding("readable", f"it {error.what}", error.remedy)
    except Rejected as error:
        yield Place(look.root, look.top).finding("readable", error.message, error.remedy)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # Objects of another shape than their kind's: the rule `shape` says which; this one cannot tell.
        told = f"rule {rule.__name__} cannot be followed: {error!r}"
        yield Place(look.root, look.top).finding("readable", told, "correct the other findings first")
