"""How well an object is, as Argo CD judges it: the operator's own Lua first, then the checks that are built in.

`None` means that the kind has no health: such an object never holds a wave back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluobook.kubernetes.health_scripts import ScriptError
from fluobook_lab.argocd.health import builtin
from fluobook_lab.argocd.health.lua import LuaHealth
from fluobook_lab.argocd.health.verdict import Health
from fluobook_lab.argocd.names import group_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook_lab.kube.objects import Obj

__all__ = ["Health", "Judge"]


class Judge:
    """Judges objects, with the Lua checks of one reading of the settings.

    Args:
        scripts: Lua by "group_Kind", or "Kind" in the core group; the group may hold `*`.
    """

    def __init__(self, scripts: Mapping[str, str]) -> None:
        self._lua = LuaHealth(scripts)

    def health(self, obj: Obj) -> Health | None:
        """The health of a live object, None if its kind has none."""
        if obj["metadata"].get("deletionTimestamp"):
            return Health("Progressing", "Pending deletion")
        group = group_of(obj)
        try:
            told = self._lua.health(group, obj["kind"], obj)
        except ScriptError as error:
            return Health("Unknown", str(error))
        if told is not None:
            return told
        check = builtin.CHECKS.get((group, obj["kind"]))
        return check(obj) if check else None
