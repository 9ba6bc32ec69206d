"""Every object has one owner, and every Application one file."""

from __future__ import annotations

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
    names: set[str] = set()
    for one in look.tree.applications:
        if one.name in names:
            yield look.at(one.document, "metadata", "name").finding(
                "duplicate", f"there are two Applications {one.name}", "rename one of them"
            )
        names.add(one.name)
