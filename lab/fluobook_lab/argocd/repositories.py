"""Git sources: which commit a revision is, and the files of that commit in a folder."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from fluobook.kubernetes.rendering import use_legacy_ksops
from fluobook_lab.argocd.processes import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from fluobook_lab.argocd.processes import Programs, Runner

SHA = re.compile(r"[0-9a-f]{40}")


class Repositories:
    """Mirrors of git repositories, and one folder for each commit that was asked for.

    Args:
        folder: where they are kept.
        programs: git among them.
        runner: runs it.
    """

    def __init__(self, folder: Path, programs: Programs, runner: Runner) -> None:
        self._folder = folder
        self._git = programs.git
        self._runner = runner
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refs: dict[str, tuple[float, dict[str, str]]] = {}

    async def resolve(self, url: str, revision: str) -> str:
        """The commit that a branch or tag stands at.

        Raises:
            CommandError: the remote does not answer, or has no such revision.
        """
        if SHA.fullmatch(revision):
            return revision
        refs = await self._remote(url)
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}"):
            if name in refs:
                return refs[name]
        raise CommandError(f"unable to resolve '{revision}' to a commit SHA")

    async def checkout(self, url: str, sha: str) -> Path:
        """A folder with the files of a commit, made ready for kubectl (see `use_legacy_ksops`); never written to again.

        Raises:
            CommandError: no such commit.
        """
        name = hashlib.sha256(url.encode()).hexdigest()[:12]
        mirror, files = self._folder / f"{name}.git", self._folder / name / sha
        async with self._locks[url]:
            if files.exists():
                return files
            if not mirror.exists():
                await self._runner.run([self._git, "clone", "-q", "--mirror", url, mirror], name="git clone")
            else:
                await self._runner.run([self._git, "fetch", "-q", "--prune", "origin"], cwd=mirror, name="git fetch")
            scratch = files.with_suffix(".part")
            scratch.mkdir(parents=True, exist_ok=True)
            env = {"GIT_DIR": str(mirror), "GIT_WORK_TREE": str(scratch), "GIT_INDEX_FILE": str(scratch) + ".index"}
            await self._runner.run(
                [self._git, "checkout", "-f", sha, "--", "."], env=env, cwd=scratch, name="git checkout"
            )
            use_legacy_ksops(scratch)
            scratch.rename(files)
        return files

    async def _remote(self, url: str) -> dict[str, str]:
        """The branches and tags; one look serves all that asked before it began, and never one that asked later."""
        asked = time.monotonic()
        async with self._locks[f"refs {url}"]:
            began, refs = self._refs.get(url, (0.0, {}))
            if began < asked:
                began = time.monotonic()
                told = await self._runner.run([self._git, "ls-remote", url], name="git ls-remote")
                refs = {name: sha for sha, _, name in (line.partition("\t") for line in told.splitlines())}
                self._refs[url] = (began, refs)
        return refs
