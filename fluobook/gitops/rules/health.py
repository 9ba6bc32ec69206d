"""The health checks that Argo CD runs: a script that fails, or that is content too soon, lets every wave go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.application import Application
    from fluobook.gitops.look import Finding, Look

_CM = ("spec", "source", "helm", "valuesObject", "configs", "cm")
_HEALTH = "resource.customizations.health."
_NEW = {"metadata": {"name": "new"}, "spec": {}}


def scripts_run_and_wait(look: Look) -> Iterator[Finding]:
    """Each health script of Argo CD runs, and calls no object healthy that has no status yet."""
    for one in look.tree.applications:
        configuration = (one.values.get("configs") or {}).get("cm") if one.chart == "argo-cd" else None
        for key, script in (configuration or {}).items():
            if key.startswith(_HEALTH) and isinstance(script, str):
                yield from _judged(look, one, key, script)


def _judged(look: Look, one: Application, key: str, script: str) -> Iterator[Finding]:
    """What is wrong with a script: it fails, or it calls an object healthy that has no status yet."""
    from fluobook.kubernetes.health_scripts import HealthScripts, ScriptError  # noqa: PLC0415 (only this needs Lua)

    name, line = f"the health script of {key.removeprefix(_HEALTH)}", one.document.line(*_CM, key)
    try:
        status = HealthScripts().run(script, _NEW).status
    except ScriptError as error:
        place = look.in_file(one.file, line + error.line)
        yield place.finding("health", f"{name} does not run: {error}", "correct it")
        return
    if status == "Healthy":
        message = f"{name} answers {status} for an object without a status"
        yield look.in_file(one.file, line).finding("health", message, "let it begin with Progressing")
