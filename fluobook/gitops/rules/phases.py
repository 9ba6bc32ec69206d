"""Every phase's values find their places in the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.errors import ParamsError
from fluobook.gitops.patches import patches_for
from fluobook.gitops.phase import names_in, values_of
from fluobook.kubernetes.json_patch import MISSING, value_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.look import Finding, Look


def phases_find_their_places(look: Look) -> Iterator[Finding]:
    """Each place that an Application names exists, and each params file has every value that the tree asks for."""
    objects = {(document.kind, document.name): document.data for _, document in look.deployed}
    given = {
        name for one in look.phases.values() if not isinstance(one, ParamsError) for name in values_of(one.platform)
    }
    for one in look.tree.applications:
        place = look.at(one.document, "metadata", "annotations", "fluobook/phase-values")
        for value in one.phase_values:
            for name in sorted(set(names_in(value.value)) - given) if given else ():
                yield place.finding("phase-value", f"no phase has a value {name}", "correct the name")
            data = objects.get((value.kind, value.name), {}) if value.kind else one.document.data
            if value_at(data, value.path) is MISSING:
                where = f"{value.kind} {value.name}" if value.kind else f"Application {one.name}"
                yield place.finding("phase-value", f"{where} has nothing at {value.path}", "correct the path")
    for file, loaded in look.phases.items():
        try:
            if isinstance(loaded, ParamsError):
                raise loaded
            patches_for(loaded.platform, look.tree)
        except ParamsError as error:
            told = "; ".join([error.message, *error.problems])
            yield look.in_file(file, 1).finding("phase-value", told, error.remedy)
