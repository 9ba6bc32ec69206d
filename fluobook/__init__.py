"""fluobook: runbooks that bring up and operate the FluoData platform.

A notebook needs one name, `open_runbook`. It is looked up when it is first used: `import fluobook` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluobook.runbook import Book, open_runbook

__all__ = ["Book", "open_runbook"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fluobook import runbook  # noqa: PLC0415 (the point of this function)

        return getattr(runbook, name)
    raise AttributeError(f"module 'fluobook' has no attribute {name!r}")
