"""One request of the conformance suite, and what of its answer is compared: everything that is not chance."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluobook_lab.kube.errors import ApiError

if TYPE_CHECKING:
    from tests.engines.engine import Engine

JSON, MERGE, STRATEGIC = "application/json", "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"

CHANCE = {"uid", "resourceVersion", "creationTimestamp", "time", "continue", "deletionTimestamp", "request"}
CHANCE |= {"clusterIP", "clusterIPs", "certificate", "token", "expirationTimestamp", "lastTransitionTime"}
CHANCE |= {
    "authentication.kubernetes.io/credential-id",
    "lastUpdateTime",
    "nodePort",
    "startTime",
    "firstTimestamp",
    "lastTimestamp",
    "eventTime",
}
"""Fields whose values are chance or time; that they are there is compared."""
OTHERWISE = {"time", "managedFields", "extra", "deployment.kubernetes.io/revision", "observedGeneration"}
OTHERWISE |= {"storageVersionHash"}
"""Fields left out: when a manager last wrote; managedFields is compared by a case of its own."""
_WHOLE = re.compile(r'Invalid value: "\{.*\}"', re.DOTALL)
"""A whole object inside a message."""
_AGE = re.compile(r"(\d+m)?\d+s|\d+m")
_NUMBERS = re.compile(r"(?<=kube-api-access-)\w+|(?<=in record \()[^)]+|\b\d{3,}\b|\b[0-9a-f]{8}-[0-9a-f-]{27}\b")


@dataclass(frozen=True)
class Step:
    """One request.

    Args:
        method: of HTTP.
        path: with no host.
        body: as an object.
        media: what the body is.
        query: parameters.
        user: the user name, and groups after it.
        pick: a path in the answer ("items.0.metadata.name") where only that is compared, because the rest differs
            between two clusters in use.
        accept: the form that is asked for.
        until: ask again until the answer is no refusal, or is one (False), or whatever it is (None).
    """

    method: str
    path: str
    body: Any = None
    media: str = JSON
    query: dict[str, str] = field(default_factory=dict)
    user: tuple[str, ...] = ()
    pick: str = ""
    accept: str = JSON
    until: bool | None = None


def answer(engine: Engine, step: Step) -> Any:
    """What an engine answers: an object without its chance, or a refusal with code, reason, message and causes."""
    if step.until is None:
        return _once(engine, step)
    answers: list[Any] = []

    def as_wanted() -> bool:
        answers[:] = [_once(engine, step)]
        return ("refused" not in answers[0]) is step.until

    engine.until(as_wanted)
    return answers[0]


def _once(engine: Engine, step: Step) -> Any:
    api = engine.of(*step.user) if step.user else engine.api
    try:
        text = engine.call(
            api.text(step.method, step.path, step.body, media=step.media, query=step.query, accept=step.accept)
        )
    except ApiError as error:
        return {"refused": error.code, "reason": error.reason, "message": masked(error.message)} | _details(error)
    if "watch" in step.query:
        return [plain(json.loads(line)) for line in text.splitlines()]
    response = json.loads(text) if text.startswith("{") else {"message": masked(text)}
    if response.get("kind") == "Deployment" and not step.pick:
        response = {**response, "status": {}}  # the controllers' own, and theirs to write at any moment
    return plain(picked(response, step.pick))


def _details(error: ApiError) -> dict[str, Any]:
    details = {k: v for k, v in (error.details or {}).items() if k not in ("uid", "retryAfterSeconds")}
    if causes := details.get("causes"):  # the real server tells some twice, once for each way in which it validates
        details["causes"] = [cause for index, cause in enumerate(causes) if cause not in causes[:index]]
    return {"details": plain(details)} if details else {}


def picked(obj: Any, path: str) -> Any:
    """A part of an object."""
    for name in path.split(".") if path else ():
        obj = dict(enumerate(obj)).get(int(name)) if isinstance(obj, list) else (obj or {}).get(name)
    return obj


def plain(obj: Any) -> Any:
    """An object without what is chance: such values become "…", and lists of managers are sorted."""
    if isinstance(obj, dict):
        obj = {key: value for key, value in obj.items() if key not in OTHERWISE}
        values = {key: "…" if key in CHANCE and value else plain(value) for key, value in sorted(obj.items())}
        return {
            key: value for key, value in values.items() if value != {} or key not in ("annotations", "f:annotations")
        }
    if isinstance(obj, list):
        return [plain(item) for item in obj]
    return masked(obj) if isinstance(obj, str) else obj


def masked(text: str) -> str:
    """A text without numbers that are chance."""
    return _AGE.sub("AGE", text) if _AGE.fullmatch(text) else _NUMBERS.sub("…", _WHOLE.sub("Invalid value: …", text))
