"""How Proxmox VE refuses: a status, its message as the reason phrase, and what is wrong with each parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class PveError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, text: str, errors: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.errors = dict(errors or {})


class TaskError(Exception):
    """A worker died; its text becomes the task's exit status."""


def died(text: str) -> PveError:
    """The 500 that every `die` in Proxmox VE becomes."""
    return PveError(500, text)


def wrong(**errors: str) -> PveError:
    """The 400 for parameters that do not fit; dashes are written as underscores."""
    named = {name.replace("_", "-"): text for name, text in errors.items()}
    return PveError(400, "Parameter verification failed.", named)


def absent(*names: str) -> PveError:
    """The 400 for parameters that are not there."""
    return wrong(**dict.fromkeys(names, "property is missing and it is not optional"))


def forbidden(path: str = "", *privileges: str) -> PveError:
    """The 403; without a path it does not say what is missing, as some calls do."""
    reason = f" ({path}, {'|'.join(privileges)})" if path else ""
    return PveError(403, f"Permission check failed{reason}")
