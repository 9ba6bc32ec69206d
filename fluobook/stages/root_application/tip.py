"""The commit that Git has now: Applications on our repository are done only at that one."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from fluobook.clients import git
from fluobook.gitops.patches import own_source

if TYPE_CHECKING:
    from fluobook.params import Platform
    from fluobook.stages.root_application.state import State

PAUSE = 5.0
"""Seconds between two questions to the Git host while an Application is at another revision."""


class Tip:
    """The commit of the revision that the platform follows; asked for again when an Application knows another one.

    Args:
        platform: its repository and revision.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._url = own_source(platform)
        self._lock = threading.Lock()
        self._commit, self._asked = "", 0.0

    def commit(self, *, again: bool = False) -> str:
        """The commit; asked for once, and at most every few seconds if it shall be asked `again`.

        Raises:
            OutsideError: the Git host does not answer, or has no such revision.
        """
        with self._lock:
            old = time.monotonic() - self._asked > PAUSE
            if not self._commit or (again and old):
                revision = self._platform.gitops.revision
                self._commit = git.ls_remote(self._url, revision, ca_file=self._platform.ca_file(self._url))
                self._asked = time.monotonic()
            return self._commit

    def concerns(self, state: State) -> bool:
        """Whether an Application follows this repository."""
        return (state.repo, state.wanted) == (self._url, self._platform.gitops.revision)

    def is_left_behind(self, state: State) -> bool:
        """Whether an Application's last operation is about another commit, and what came of it does not matter."""
        return self.concerns(state) and state.operated not in ("", self.commit())

    def reached(self, state: State, *, again: bool = False) -> bool:
        """Whether an Application is at the commit, if it follows this repository at all."""
        if not self.concerns(state) or state.revision == self.commit():
            return True
        return state.revision == self.commit(again=again)
