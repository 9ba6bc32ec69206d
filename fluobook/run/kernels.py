"""Kernels of headless runs: forked from one template process, reached over sockets in a private folder, never over TCP.

Python, IPython and fluobook take well over a second of CPU to start. The template process imports them once, while the
lab starts; each notebook's kernel is a fork of it and is ready at once.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets.config import Config

from fluobook.environment import inherited

IMPORTED = ("fluobook.notebook", "kubernetes.config", "kubernetes.dynamic", "IPython.core.completerlib", "sqlite3")
"""What the template process imports besides ipykernel."""

LOG = "kernel.log"
"""The file in a kernel's folder that receives what its process writes outside the notebook: warnings, why it ended."""


def sockets_in(folder: Path) -> Config:
    """The configuration of a kernel manager whose sockets are in a folder.

    By default the kernels of one working directory would share their sockets, and two runs would collide.
    """
    sockets = {"transport": "ipc", "ip": str(folder / "k"), "connection_file": str(folder / "connection.json")}
    return Config({"KernelManager": sockets})


class KernelTemplate:
    """A process with all imports done that forks kernels on request.

    It ends when its standard input closes, so it never outlives the run; a kernel ends itself when its parent is gone.
    It has a session of its own: signals of the terminal do not reach it.
    """

    def __init__(self) -> None:
        code = f"from {__name__} import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-Xfrozen_modules=off", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=inherited(),
            start_new_session=True,
            text=True,
        )

    def request(self, **fields: Any) -> Any:
        """Send a request and return the answer; see `serve`.

        Raises:
            OSError: the template process is gone.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 (narrowing for the type checker)
        assert stdout is not None  # noqa: S101
        stdin.write(json.dumps(fields) + "\n")
        stdin.flush()
        if not (answer := stdout.readline()):
            raise OSError("the template process of the kernels has ended")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def kernel_template() -> Iterator[KernelTemplate]:
    """The template process of one run; its imports go on while the caller does something else."""
    template = KernelTemplate()
    try:
        yield template
    finally:
        template.close()


class ForkedKernel:
    """A kernel's process, with the methods of `subprocess.Popen` that its users need."""

    stdin = stdout = stderr = None

    def __init__(self, template: KernelTemplate, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._template = template

    def poll(self) -> int | None:
        """The exit code, or None while the process runs."""
        if self.returncode is None:
            self.returncode = self._template.request(poll=self.pid)
        return self.returncode

    def wait(self) -> int:
        """Wait for the end of the process; returns its exit code."""
        while (code := self.poll()) is None:
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal; the template reaps the process in `poll` only, so the process id is still its own."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkingProvisioner(LocalProvisioner):
    """Lets the template fork the kernel in place of starting Python."""

    def __init__(self, template: KernelTemplate, log: Path, **options: Any) -> None:
        super().__init__(**options)
        self._template = template
        self._log = log

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Fork a kernel; `cmd` ends with the arguments of an IPython kernel, "-f FILE" first."""
        arguments = cmd[cmd.index("-f") :]
        cwd = str(kwargs.get("cwd") or Path.cwd())
        pid = self._template.request(arguments=arguments, env=dict(kwargs["env"]), cwd=cwd, log=str(self._log))
        self.process = ForkedKernel(self._template, pid)  # type: ignore[assignment]
        self.pid = self.pgid = pid
        self.cwd = cwd
        return self.connection_info


def serve() -> None:
    """The template process: answers requests on standard input, each a line of JSON, until it closes.

    `{"arguments", "env", "cwd", "log"}` forks a kernel and answers its process id; `{"poll": pid}` answers the exit
    code of a kernel, null while it runs.
    """
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # read at import: a kernel ends itself when this process is gone
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # a headless kernel has no use for its debugger
    for name in IMPORTED:
        import_module(name)
    from ipykernel import kernelapp  # noqa: PLC0415 (heavy, and needed by the template process alone)

    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif answer := os.fork():
            pass
        else:
            _become_kernel(**request)
            kernelapp.launch_new_instance(request["arguments"])
            return
        print(json.dumps(answer), flush=True)  # noqa: T201 (the answer)


def _become_kernel(*, env: dict[str, str], cwd: str, log: str, **_: Any) -> None:
    """Give a fork the session, environment, folder and files of a process of its own."""
    os.setsid()
    os.environ.clear()
    os.environ.update(env | {"JPY_PARENT_PID": str(os.getppid())})  # as every kernel of Jupyter has it
    os.chdir(cwd)
    empty, written = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for source, target in ((empty, 0), (written, 1), (written, 2)):
        os.dup2(source, target)
