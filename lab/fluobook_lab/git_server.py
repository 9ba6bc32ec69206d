"""The lab's Git server: smart HTTP through git's own http-backend, with push allowed.

A repository starts with one commit of the files in a working tree, committed or not. Its id depends only on the
content, so that two labs of one tree have the same commit.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

from aiohttp import web

from fluobook_lab.http import HttpServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fluobook_lab.clock import Clock

BRANCH = "main"
LARGEST_PUSH = 64 << 20
COPY_TIMEOUT = 600.0
"""Seconds to copy a repository of this machine, which may have a long history."""
IDENTITY = {
    "GIT_AUTHOR_NAME": "lab",
    "GIT_AUTHOR_EMAIL": "lab@fluobook.invalid",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "lab",
    "GIT_COMMITTER_EMAIL": "lab@fluobook.invalid",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}
ISOLATED = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0"}


class GitServer(HttpServer):
    """Repositories below a folder, at `http://127.0.0.1:<port>/<name>.git`.

    Args:
        root: the folder of the bare repositories; created if it does not exist.
        clock: the lab's clock.
        git: the git program.
    """

    def __init__(self, root: Path, clock: Clock, *, git: Path) -> None:
        app = web.Application(client_max_size=LARGEST_PUSH)
        app.router.add_route("*", "/{path:.+}", self._handle)
        super().__init__(app, clock, read_only=_is_fetch)
        self.root = root
        self._git = git
        root.mkdir(parents=True, exist_ok=True)

    def url(self, name: str) -> str:
        """The URL of a repository, once the server listens."""
        return f"http://127.0.0.1:{self.port}/{name}.git"

    def seed(self, name: str, tree: Path, paths: Sequence[str] = (".",), *, tags: Sequence[str] = ()) -> str:
        """Create a repository from files of a working tree, without those that its .gitignore names.

        Args:
            name: "fluobook", or with folders: "github.com/rabbitmq/cluster-operator".
            tree: the top of the working tree, in git or not.
            paths: files and folders in it; missing ones are ignored.
            tags: tags to set on the commit.

        Returns:
            the commit's id.
        """
        existing = [path for path in paths if (tree / path).exists()]
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".seed-") as scratch:
            env = {"GIT_WORK_TREE": str(tree), "GIT_INDEX_FILE": f"{scratch}/index"}
            self._init(name)
            self._run(name, "add", "-A", "--", *existing, env=env, cwd=tree)
            sha = self._commit(name, self._run(name, "write-tree", env=env), "the platform tree")
        for tag in tags:
            self._run(name, "tag", "-f", tag, sha)
        return sha

    def copy(self, name: str, repository: Path, revision: str, sha: str) -> None:
        """Copy a repository, with the revision as a tag; its configuration and hooks are left behind.

        Args:
            name: as in `seed`.
            repository: a bare repository or a clone on this machine.
            revision: the tag or branch that is asked for.
            sha: its commit.
        """
        folder = self.root / f"{name}.git"
        if not folder.exists():
            command = [
                str(self._git),
                "-c",
                "safe.directory=*",
                "clone",
                "-q",
                "--mirror",
                str(repository),
                str(folder),
            ]
            subprocess.run(command, check=True, env={**os.environ, **ISOLATED}, timeout=COPY_TIMEOUT)
        if (folder / "shallow").exists() and revision != sha:
            # git refuses to fetch from a shallow repository: its files are served in a commit without history
            tree = self._run(name, "rev-parse", f"{sha}^{{tree}}")
            for ref in self._run(name, "for-each-ref", "--format=%(refname)").split():
                self._run(name, "update-ref", "-d", ref)
            (folder / "shallow").unlink()
            sha = self._commit(name, tree, revision)
        if revision not in (sha, "HEAD"):
            self._run(name, "tag", "-f", revision, sha)

    def commit(self, name: str, files: Mapping[str, str | None], message: str = "change") -> str:
        """Change files on `main` as a push would, and return the commit's id; None removes a file."""
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".commit-") as scratch:
            env = {"GIT_WORK_TREE": scratch, "GIT_INDEX_FILE": f"{scratch}/index"}
            self._run(name, "read-tree", BRANCH, env=env)
            for path, content in files.items():
                if content is None:
                    self._run(name, "update-index", "--force-remove", "--", path, env=env)
                    continue
                blob = self._run(name, "hash-object", "-w", "--stdin", stdin=content)
                self._run(name, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=env)
            return self._commit(name, self._run(name, "write-tree", env=env), message, parent=self.head(name))

    def head(self, name: str) -> str:
        """The commit of `main`."""
        return self._run(name, "rev-parse", BRANCH)

    def _init(self, name: str) -> None:
        folder = self.root / f"{name}.git"
        command = [str(self._git), "init", "-q", "--bare", "-b", BRANCH, str(folder)]
        subprocess.run(command, check=True, env={**os.environ, **ISOLATED}, timeout=60)
        self._run(name, "config", "http.receivepack", "true")

    def _commit(self, name: str, tree: str, message: str, parent: str = "") -> str:
        parents = ["-p", parent] if parent else []
        sha = self._run(name, "commit-tree", tree, *parents, "-m", message, env=IDENTITY)
        self._run(name, "update-ref", f"refs/heads/{BRANCH}", sha)
        return sha

    def _run(
        self, name: str, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = "", cwd: Path | None = None
    ) -> str:
        variables = {**os.environ, **ISOLATED, "GIT_DIR": str(self.root / f"{name}.git"), **(env or {})}
        command = [str(self._git), *arguments]
        result = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=True,
            env=variables,
            cwd=cwd or self.root,
            timeout=60,
        )
        return result.stdout.strip()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request through CGI."""
        body = await request.read()  # aiohttp has decompressed it
        env = {
            **os.environ,
            **ISOLATED,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "lab",
            "REMOTE_ADDR": "127.0.0.1",
        }
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            str(self._git), "http-backend", stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, env=env
        )
        output, _ = await process.communicate(body)
        return _response(output)


def _is_fetch(request: web.Request) -> bool:
    return not request.path.endswith("/git-receive-pack")


def _response(output: bytes) -> web.Response:
    """The HTTP response for the output of the CGI program."""
    head, _, body = output.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
    status = int(headers.pop("Status", "200").split()[0])
    return web.Response(status=status, headers=headers, body=body)
