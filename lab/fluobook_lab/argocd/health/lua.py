"""The Lua health checks of argocd-cm: which script belongs to a kind, and its result."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from fluobook.kubernetes.health_scripts import HealthScripts
from fluobook_lab.argocd.health.verdict import Health

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook_lab.kube.objects import Obj


class LuaHealth:
    """The checks of one reading of argocd-cm.

    Args:
        scripts: by "group_Kind", or "Kind" in the core group; the group may hold `*`.
    """

    def __init__(self, scripts: Mapping[str, str]) -> None:
        self._scripts = dict(scripts)
        self._sandbox = HealthScripts()

    def health(self, group: str, kind: str, obj: Obj) -> Health | None:
        """What the check of this kind says of an object; None if there is no check.

        Raises:
            ScriptError: the check is broken.
        """
        script = self._script(f"{group}_{kind}" if group else kind)
        return Health(*self._sandbox.run(script, obj)) if script else None

    def _script(self, name: str) -> str:
        if name in self._scripts:
            return self._scripts[name]
        wild = (
            script for pattern, script in self._scripts.items() if "*" in pattern and fnmatch.fnmatchcase(name, pattern)
        )
        return next(wild, "")
