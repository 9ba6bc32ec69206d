"""Day 2, secrets: creates, edits, rotates and re-keys the encrypted files in Git, without plaintext on a disk.

It is no step of the bring-up: it works on the repository, and Argo CD deploys what is committed and pushed. Plaintext
stays in this process and in pipes to sops; a value is typed by a person without echo, or generated here. Every file
that is written gets a new data key, so a removed recipient cannot read what is written afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from fluobook.stages.core.stage import Stage
from fluobook.stages.secrets.files import observe, perform, verify
from fluobook.stages.secrets.plan import NAME, parse, plan

TITLE = "Manage the secrets in Git"


def stage(request: Mapping[str, Mapping[str, str]], ask: Callable[[str], str] | None = None) -> Stage:
    """The stage with the requested changes.

    Args:
        request: the changes of each file; see `plan.parse`.
        ask: asks a person for a value without echo; None where nobody can be asked.

    Raises:
        UsageError: the request has an unknown file, key or choice.
    """
    changes, renewed = parse(request, ask), set[tuple[str, str]]()
    return Stage(
        10,
        NAME,
        TITLE,
        partial(observe, changes=changes, renewed=renewed),
        plan,
        partial(perform, changes=changes, renewed=renewed),
        verify,
    )


STAGE = Stage(10, NAME, TITLE, observe, plan, perform, verify)
"""The stage without changes: it brings files, recipients and generators in step with .sops.yaml."""

__all__ = ["STAGE", "stage"]
