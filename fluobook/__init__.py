"""fluobook: runbooks that bring up and operate the FluoData platform.

A notebook needs one name: `open_runbook`, or `open_tree` where only the repository is looked at. Names are looked
up when they are first used: `import fluobook` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluobook.runbook import Book, open_runbook
    from fluobook.show.tree import open_tree

__all__ = ["Book", "open_runbook", "open_tree"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fluobook import runbook  # noqa: PLC0415 (the point of this function)
        from fluobook.show import tree  # noqa: PLC0415

        return tree.open_tree if name == "open_tree" else getattr(runbook, name)
    raise AttributeError(f"module 'fluobook' has no attribute {name!r}")
