"""Runs git, kubectl, helm and sops for the repo-server: a few at a time, alone with their own home folder."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluobook.kubernetes.rendering import helm_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

AT_ONCE = 2
DEADLINE = 90.0
"""Real seconds for one process; Argo CD's own exec timeout."""


@dataclass(frozen=True)
class Programs:
    """Where the programs are that the repo-server runs."""

    git: Path
    kubectl: Path
    helm: Path
    sops: Path


class CommandError(Exception):
    """A process ended badly; the message is what Argo CD would put into a condition."""


class Runner:
    """Runs processes, `AT_ONCE` at a time.

    Args:
        home: their home folder; made if it is not there.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._places = asyncio.Semaphore(AT_ONCE)
        home.mkdir(parents=True, exist_ok=True)

    async def run(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str = "",
        name: str = "",
    ) -> str:
        """Its standard output.

        Args:
            command: program and arguments.
            env: added to a bare environment; secrets may stand here.
            cwd: the folder it starts in.
            stdin: given on standard input.
            name: what an error calls the command.

        Raises:
            CommandError: exit code not 0, or it took longer than `DEADLINE`.
        """
        called = name or str(command[0]).rpartition("/")[2]
        async with self._places:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                *map(str, command), stdin=pipe, stdout=pipe, stderr=pipe, env={**self._bare(), **(env or {})}, cwd=cwd
            )
            try:
                async with asyncio.timeout(DEADLINE):
                    told, complaint = await process.communicate(stdin.encode())
            except TimeoutError:
                raise CommandError(f"`{called}` failed timeout after {DEADLINE:g}s") from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            words = complaint.decode(errors="replace").strip()
            raise CommandError(f"`{called}` failed exit status {process.returncode}: {words}")
        return told.decode(errors="replace")

    def _bare(self) -> dict[str, str]:
        """Nothing of the operator's: no kubeconfig, no age keys, no git settings."""
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            **helm_environment(self.home / "helm"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "SOPS_DISABLE_VERSION_CHECK": "1",
        }
