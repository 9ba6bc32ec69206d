"""Proves the outcome from the files as they are now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.gitops.check import RULES, findings
from fluobook.stages.core.check import Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fluobook.context import RunContext
    from fluobook.stages.secrets_care.observe import Observation

CLAIMS = {
    "cleartext": "no secret stands in clear",
    "key": "no private key is in the tree",
    "recipient": "each file is for exactly those that .sops.yaml names",
    "generator": "the generators list what exists, all of it",
}
"""Rules of `fluobook check`, and what it means that they find nothing."""


def verify(context: RunContext, seen: Observation) -> Sequence[Check]:
    """The checks: that every file opened and had its MAC intact is what the observation has proved."""
    found = findings(context.root, {name: RULES[name] for name in CLAIMS}, path=context.platform.gitops.path)
    files = len(seen.files)
    by_rule = [
        _check(
            claim,
            [one.line_of_text() for one in found if one.rule == name],
            f"{files} files, {len(seen.generators)} generators",
        )
        for name, claim in CLAIMS.items()
    ]
    public = [one.file for one in seen.files if seen.live and one.recipients & seen.lab]
    return [
        Check("each file opens with your key and is as SOPS wrote it", passed=True, result=f"{files} of {files}"),
        *by_rule,
        _check("none is for the lab's key, if it is to go live", public, "live" if seen.live else "a rehearsal"),
        _check("what was wished is there", list(_missing(seen)), f"{len(seen.wishes)} wishes"),
    ]


def _check(claim: str, wrong: Sequence[str], evidence: str) -> Check:
    return Check(claim, not wrong, "; ".join(wrong) or evidence, "run the notebook again, and look at its plan")


def _missing(seen: Observation) -> Iterable[str]:
    for wish in seen.wishes:
        one = seen.find(wish.file)
        for key, word in wish.words.items():
            there = one is not None and key in one.keys
            if there == (word == "remove") and word != "keep":
                yield f"{wish.file}: {key}"
        if one:
            yield from (f"{wish.file}: {key}" for key in one.differing)
