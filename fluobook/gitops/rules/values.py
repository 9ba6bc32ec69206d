"""Helm values: a key that a chart does not have is ignored by helm without a word; here it is named.

The keys that are known are those of the stand-in charts' values.yaml, which list what the tree may set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.application import Application
    from fluobook.gitops.look import Finding, Look

_STAND_INS = "lab/fluobook_lab/charts/standins"


def values_are_known(look: Look) -> Iterator[Finding]:
    """Every key of every valuesObject is one that the chart has."""
    for one in look.tree.applications:
        known = _known(look, one) if one.chart else None
        if known is None:
            continue
        for path in _unknown(one.values, known):
            yield look.at(one.document, "spec", "source", "helm", "valuesObject", *path).finding(
                "value",
                f"{one.chart} has no value {'.'.join(path)}",
                "correct the key; the chart's values.yaml has them all",
            )


def _known(look: Look, one: Application) -> dict[str, Any] | None:
    """The values that the stand-in of a chart has; None where there is no stand-in in this repository."""
    folder = look.root / _STAND_INS / one.repo.partition("://")[2].strip("/") / one.chart
    file = folder / "values.yaml"
    return yaml.safe_load(file.read_text()) or {} if file.exists() else None


def _unknown(values: dict[str, Any], known: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Keys without a counterpart, or with a value of another kind; an empty mapping in the chart takes any key."""
    for key, value in values.items():
        if key not in known:
            yield (*path, key)
        elif isinstance(value, dict) and isinstance(known[key], dict) and known[key]:
            yield from _unknown(value, known[key], (*path, key))
        elif value is not None and not _fits(value, known[key]):
            yield (*path, key)


def _fits(value: Any, default: Any) -> bool:
    """Whether a value may stand where the chart has its own: helm templates fail late, or take any text for true."""
    if default in (None, "", {}, []):
        return True  # nothing is said of the kind of value
    if isinstance(default, dict | list | bool):
        return type(value) is type(default)
    return not isinstance(value, dict | list) and (isinstance(default, str) or isinstance(value, type(default)))
