"""Settings without which a chart does harm here: the list, and the reasons, are data (data/charts.yaml)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.gitops.documents import value_under
from fluobook.gitops.knowledge import chart_of, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.look import Finding, Look

_VALUES = ("spec", "source", "helm", "valuesObject")
_ELSEWHERE = ("values", "parameters", "fileParameters", "valueFiles")


def all_is_set_as_it_must_be(look: Look) -> Iterator[Finding]:
    """Charts and objects are given what they must be given here."""
    yield from _charts(look)
    yield from _objects(look)


def _charts(look: Look) -> Iterator[Finding]:
    """Every setting that a chart must be given is given, in valuesObject, where all can see it."""
    for one in look.tree.applications:
        for setting in chart_of(one).settings:
            if not setting.holds(value_under(one.values, setting.at)):
                yield look.at(one.document, *_VALUES, *setting.at).finding(
                    "setting",
                    f"{one.name}: {'.'.join(map(str, setting.at))} is not {setting.wanted()}",
                    f"set it so: {setting.why}",
                )
        helm = one.document.data["spec"]["source"].get("helm") or {}
        for place in _ELSEWHERE:
            if helm.get(place):
                yield look.at(one.document, "spec", "source", "helm", place).finding(
                    "setting", f"{one.name} has values in helm.{place} too", "move them to helm.valuesObject"
                )


def _objects(look: Look) -> Iterator[Finding]:
    """Every field that objects of a kind must have here is there."""
    for _, document in look.deployed:
        for setting in settings_of(document.kind):
            if not setting.holds(value_under(document.data, setting.at)):
                yield look.at(document, *setting.at).finding(
                    "setting",
                    f"{document.kind} {document.name}: {'.'.join(map(str, setting.at))} is not {setting.wanted()}",
                    f"set it so: {setting.why}",
                )


def large_objects_are_applied_by_the_server(look: Look) -> Iterator[Finding]:
    """Charts with objects beyond 256 KiB are applied server-side: the other way's annotation could not hold them."""
    for one in look.tree.applications:
        if chart_of(one).large and "ServerSideApply=true" not in one.sync_options:
            yield look.at(one.document, "spec", "syncPolicy", "syncOptions").finding(
                "server-side", f"{one.name} has no ServerSideApply=true", "add it to syncOptions"
            )
