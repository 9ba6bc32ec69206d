"""Every object has one owner, and every Application one file."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.look import Finding, Look


def objects_have_one_owner(look: Look) -> Iterator[Finding]:
    """No object is deployed twice: two Applications would fight for it for ever."""
    seen: dict[tuple[str, str, str, str], str] = {}
    for application, document in look.deployed:
        key = (document.group, document.kind, document.namespace, document.name)
        if key in seen:
            yield look.at(document, "metadata", "name").finding(
                "duplicate",
                f"{document.kind} {document.name} is deployed by {seen[key]} and by {application.name}",
                "keep one of them",
            )
        seen[key] = application.name
    for one, other in permutations(look.tree.applications, 2):
        if one.name == other.name:
            message = f"there is another Application {one.name}, at {look.told(other.document, 'metadata', 'name')}"
            yield look.at(one.document, "metadata", "name").finding("duplicate", message, "rename one of them")
