"""fluobook: runbooks that bring up and operate the FluoData platform.

A notebook needs one name: `open_runbook`, or `open_tree` where only the repository is looked at. Names are looked
up when they are first used: `import fluobook` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluobook.display.tree import open_tree
    from fluobook.notebook import Runbook, open_runbook

__all__ = ["Runbook", "open_runbook", "open_tree"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fluobook import notebook  # noqa: PLC0415 (the point of this function)
        from fluobook.display import tree  # noqa: PLC0415

        return tree.open_tree if name == "open_tree" else getattr(notebook, name)
    raise AttributeError(f"module 'fluobook' has no attribute {name!r}")
