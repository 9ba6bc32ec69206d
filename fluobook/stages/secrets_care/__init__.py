"""Day 2, secrets: creates, edits, rotates and re-keys what Git holds encrypted, without its clear form on a disk.

It is no step of the bring-up: it works on the repository, and Argo CD brings what was committed and pushed. Clear text
lives in this process and in pipes to sops; a value comes from a person who types it unseen, or is made up here. Every
file that is written gets a new data key, so whoever lost access cannot read what is written after that.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fluobook.stages.core.stage import Stage
from fluobook.stages.secrets_care.observe import observe
from fluobook.stages.secrets_care.perform import perform
from fluobook.stages.secrets_care.plan import NAME, plan
from fluobook.stages.secrets_care.verify import verify
from fluobook.stages.secrets_care.wishes import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TITLE = "Keep the secrets in Git"


def stage(told: Mapping[str, Mapping[str, str]], ask: Callable[[str], str] | None = None) -> Stage:
    """The stage, with what shall be set; without it, the stage keeps files, recipients and generators in step.

    Args:
        told: what shall be set in which file; see `wishes.parse`.
        ask: asks a person for a value without showing it; None where nobody can be asked.

    Raises:
        UsageError: what is told is not understood.
    """
    wishes, renewed = parse(told, ask), set[tuple[str, str]]()
    look = partial(observe, wishes=wishes, renewed=renewed)
    return Stage(10, NAME, TITLE, look, plan, partial(perform, wishes=wishes, renewed=renewed), verify)


STAGE = Stage(10, NAME, TITLE, observe, plan, perform, verify)
"""The stage without wishes: what `book.stage("secrets")` gives."""

__all__ = ["STAGE", "stage"]
