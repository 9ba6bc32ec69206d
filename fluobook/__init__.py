"""fluobook: runbooks that bring up and operate the FluoData platform.

A notebook needs one name: `open_runbook`, which returns a `Runbook`. Names are imported at first use, so
`import fluobook` takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluobook.notebook import Runbook, open_runbook

__all__ = ["Runbook", "open_runbook"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fluobook import notebook  # noqa: PLC0415 (the point of this function)

        return getattr(notebook, name)
    raise AttributeError(f"module 'fluobook' has no attribute {name!r}")
