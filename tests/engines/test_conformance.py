"""The same requests to both engines, and the same answers: whole objects, refusals with code, reason and causes.

What the real engine answers is recorded, so the embedded one is compared with it on every machine. The wording of
refusals and the descriptions of columns are the real engine's alone.
"""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.engines.cases import CASES
from tests.engines.deliberate import DELIBERATE
from tests.engines.recording import recorded
from tests.engines.step import answer

if TYPE_CHECKING:
    from tests.engines.engine import Engine


@pytest.mark.lab
@pytest.mark.parametrize("name", CASES)
def test_the_embedded_engine_answers_as_the_real_one_did(name: str, embedded: Engine) -> None:
    differing = []
    for number, (step, theirs) in enumerate(zip(CASES[name], recorded()[name], strict=True), 1):
        ours, theirs = without_wording(answer(embedded, step)), without_wording(theirs)  # noqa: PLW2901
        if wanted := DELIBERATE.get((name, number)):
            assert ours != theirs, f"step {number} is no difference any more: take it out of the list"
            assert wanted.holds(ours, theirs), f"step {number}: {wanted.why}\n{difference(ours, theirs)}"
        elif ours != theirs:
            differing.append(f"step {number}: {step.method} {step.path}\n{difference(ours, theirs)}")
    assert not differing, "\n".join(differing)


@pytest.mark.parametrize("name", CASES)
def test_the_real_engine_answers_as_it_did(name: str, real: Engine) -> None:
    answers = [answer(real, step) for step in CASES[name]]
    assert answers == recorded()[name], "record again: python -m tests.engines.recording"


def without_wording(response: Any) -> Any:
    """An answer without what only people read: messages of refusals, and descriptions of a table's columns."""
    if isinstance(response, list):
        return [without_wording(item) for item in response]
    if not isinstance(response, dict):
        return response
    refusal = "refused" in response or response.get("status") == "Failure"
    causes = (response.get("details") or {}).get("causes") or () if refusal else ()
    response = {key: value for key, value in response.items() if not (refusal and key in ("message", "details"))}
    if causes:
        pairs = {(cause.get("reason", ""), cause.get("field", "")) for cause in causes}
        response["causes"] = sorted(pairs)
    is_column = {"name", "priority", "description"} <= set(response)
    return {key: without_wording(value) for key, value in response.items() if not (is_column and key == "description")}


def difference(ours: Any, theirs: Any) -> str:
    texts = [
        json.dumps(response, indent=1, sort_keys=True, ensure_ascii=False).splitlines() for response in (ours, theirs)
    ]
    return "\n".join(difflib.unified_diff(*texts, "embedded", "real", lineterm="", n=1))
