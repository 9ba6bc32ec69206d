"""A run by hand: a run folder with clean notebooks, JupyterLab in it, and the record that a headless run leaves."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import KERNEL_NAME, write_kernel_spec
from jupyter_core.paths import jupyter_runtime_dir

from fluobook.clients.answers import mismatch
from fluobook.display import subshell
from fluobook.display.outputs import FOLDER, restore
from fluobook.errors import BadFile, ToolFailed
from fluobook.files import is_alive, parse_json, read_text, temporary_folder, write_json, write_text
from fluobook.journal import chain
from fluobook.journal import journal as journals
from fluobook.redact import Redactor
from fluobook.run import kernels
from fluobook.run.report import write_report
from fluobook.run.signals import GRACE, Signals
from fluobook.waiting import Cancellation, wait_until

START = "index.ipynb"
"""The notebook that JupyterLab shows first."""
LOG = "jupyterlab.log"
TIMEOUT = 120.0
"""Seconds that JupyterLab may take to start, and the start page to be filled."""
INTERVAL = 1.0
"""Seconds between two checks of what the record is made of."""

SETTINGS = {
    "@jupyterlab/docmanager-extension:plugin": {"autosaveInterval": 5},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}
"""Defaults of this JupyterLab, which a person's own settings override. Saving often keeps the record complete."""

_LINKED = re.compile(r"(?<=\]\()\.\./(?=([\w.-]+)/)")
"""In a link to a file outside the folder of the notebooks: what leads there, before the name of the folder."""


def run(
    folder: Path,
    environment: Mapping[str, str],
    signals: Signals,
    *,
    report: Callable[[str], None],
    show: Callable[[Server], None],
) -> int:
    """Serve a run folder until JupyterLab or a signal ends the run; returns the exit code.

    Args:
        folder: the run folder, with its notebooks and the begin of its journal.
        environment: of JupyterLab and its kernels.
        signals: end the run; that is no failure.
        report: receives a line for each step of the start.
        show: receives the server, once it listens.
    """
    with jupyterlab(folder, environment) as process:
        server = Server(process, "", "")
        try:
            report("starting JupyterLab; reading the state of every stage for the start page")
            page = threading.Thread(target=fill_start_page, args=(folder, environment), daemon=True)
            page.start()
            while page.is_alive() and signals.caught is None:
                page.join(INTERVAL)
            if listening := serving(process, folder, signals):
                server = listening
                show(server)
                keep_record(process, folder, signals)
        finally:
            code = process.poll() or 0
            server.end()
            complete(folder)
            with closing(journals.Journal(folder / "events.jsonl", Redactor())) as journal:
                journal.write("run-ended", exit_code=code)
            write_record(folder)
    return code


def copy_notebooks(root: Path, folder: Path, *, phase: str, target: str) -> None:
    """Copy the notebooks into a run folder, without outputs, for a phase and a target.

    Links to other folders of the repository lead through a symbolic link in the run folder: JupyterLab serves nothing
    above its own folder.
    """
    import nbformat  # noqa: PLC0415 (heavy)

    chosen = {"phase": phase, "target": target}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell |= {"outputs": [], "execution_count": None}
            else:
                for name in _LINKED.findall(cell.source):
                    if not (folder / name).is_symlink():
                        (folder / name).symlink_to(root / name)
                cell.source = _LINKED.sub("", cell.source)
            if "parameters" in cell.metadata.get("tags", ()):
                cell.source = re.sub(
                    r'^(phase|target)(: str = )"\w*"',
                    lambda match: f"{match[1]}{match[2]}{json.dumps(chosen[match[1]])}",
                    cell.source,
                    flags=re.MULTILINE,
                )
        write_text(folder / path.name, nbformat.writes(notebook))


def fill_start_page(folder: Path, environment: Mapping[str, str]) -> None:
    """Execute the start page once, so that whoever opens it sees the board; without it the page is empty at first."""
    import nbformat  # noqa: PLC0415 (heavy)
    from nbclient import NotebookClient  # noqa: PLC0415
    from nbclient.exceptions import CellExecutionError  # noqa: PLC0415
    from nbformat.sign import NotebookNotary  # noqa: PLC0415

    notebook = nbformat.read(folder / START, as_version=4)
    with temporary_folder("kernel") as sockets, suppress(CellExecutionError, TimeoutError):
        client = NotebookClient(
            notebook,
            timeout=int(TIMEOUT),
            config=kernels.sockets_in(sockets),
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env={**environment, "FLUOBOOK_RENDER": "final"})
    NotebookNotary().sign(notebook)  # else JupyterLab removes the style of what it shows
    write_text(folder / START, nbformat.writes(notebook))


def complete(folder: Path) -> None:
    """Write into the notebooks what their kernels have shown and no page has saved."""
    import nbformat  # noqa: PLC0415 (heavy)

    for path in folder.glob("*.ipynb"):
        with suppress(Exception):  # a notebook that cannot be read costs no record of the others
            notebook = nbformat.read(path, as_version=4)
            if restore(notebook, path):
                write_text(path, nbformat.writes(notebook))
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


@dataclass(frozen=True)
class Server:
    """A JupyterLab: its process, the address of its page, and its token."""

    process: subprocess.Popen[bytes]
    address: str
    token: str

    @property
    def url(self) -> str:
        """The URL to open, with the token."""
        return _url(self.address, self.token)

    @property
    def page(self) -> str:
        """The URL of a file that leads to `url`: arguments of a browser can be read by others, a token must not."""
        return (Path(jupyter_runtime_dir()) / f"jpserver-{self.process.pid}-open.html").as_uri()

    def request(self, path: str, *, method: str = "GET") -> Any:
        """Call JupyterLab's API; returns the answer, or nothing if there is none."""
        headers = {"Authorization": f"token {self.token}"}
        call = urllib.request.Request(f"{self.address}api/{path}", method=method, headers=headers)  # noqa: S310
        with suppress(OSError, ValueError), urllib.request.urlopen(call, timeout=GRACE) as answer:  # noqa: S310
            return json.loads(answer.read() or "null")
        return None

    def interrupt(self) -> None:
        """Interrupt the cells that run, and wait for a moment until they have recorded that."""

        def busy() -> list[str]:
            running = self.request("kernels") or []
            return [kernel["id"] for kernel in running if kernel.get("execution_state") == "busy"]

        for kernel in busy():
            self.request(f"kernels/{kernel}/interrupt", method="POST")
        with suppress(Exception):
            wait_until(lambda: None if busy() else True, what="kernels", timeout=GRACE, cancellation=Cancellation())

    def end(self) -> None:
        """Interrupt what runs, then end JupyterLab and its kernels."""
        if self.process.poll() is None:
            self.interrupt()
            self.process.terminate()
        try:
            self.process.wait(3 * GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _url(address: str, token: str) -> str:
    return f"{address}lab/tree/{START}" + (f"?token={token}" if token else "")


@contextmanager
def jupyterlab(folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A JupyterLab that serves a run folder on loopback, in a session of its own: Ctrl-C does not reach it.

    The process may still be starting; `serving` waits for it. The token is in none of its variables: kernels inherit
    these, and a log would contain a token that JupyterLab generates.
    """
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "ServerApp.root_dir": folder,
        "ServerApp.contents_manager_class": "fluobook.run.contents.RecordedContents",
        "LabApp.default_url": f"/lab/tree/{START}",
    }
    code = "from fluobook.run.contents import serve; serve()"
    command = [sys.executable, "-P", "-c", code, *(f"--{name}={value}" for name, value in options.items())]
    with temporary_folder("jupyter") as config, (folder / LOG).open("wb") as log:
        (config / "labconfig").mkdir()
        write_json(config / "labconfig" / "default_setting_overrides.json", SETTINGS)
        write_json(config / "jupyter_server_config.json", {"IdentityProvider": {"token": secrets.token_urlsafe(24)}})
        write_kernel_spec(config / "kernels" / KERNEL_NAME, extra_arguments=[f"--ext={subshell.__name__}"])
        env = {**environment}
        for name in ("JUPYTER_CONFIG_PATH", "JUPYTER_PATH"):
            env[name] = os.pathsep.join(filter(None, [str(config), environment.get(name, "")]))
        pipe = subprocess.PIPE  # closes with this process: the sign for JupyterLab to end
        yield subprocess.Popen(command, cwd=folder, env=env, stdin=pipe, stdout=log, stderr=log, start_new_session=True)


def serving(process: subprocess.Popen[bytes], folder: Path, signals: Signals) -> Server | None:
    """The JupyterLab once it listens; None if a signal ended the wait.

    Raises:
        ToolFailed: it ended, or did not listen in time.
    """

    def listening() -> dict[str, Any] | None:
        if signals.caught is not None or process.poll() is not None:
            return {}
        return next((state for state in _servers() if state.get("pid") == process.pid and state.get("port")), None)

    state = wait_until(
        listening,
        what="JupyterLab to listen",
        timeout=TIMEOUT,
        cancellation=Cancellation(),
        remedy=f"read {folder / LOG}",
    )
    if state:
        return Server(process, state["url"], state.get("token", ""))
    if signals.caught is None:
        tail = (folder / LOG).read_text(errors="replace").splitlines()[-5:]
        raise ToolFailed(
            "JupyterLab ended while it started",
            system="JupyterLab",
            cause="\n".join(tail),
            remedy=f"read {folder / LOG}",
        )
    return None


def _servers() -> Iterator[dict[str, Any]]:
    """What every Jupyter server of this user has written about itself."""
    for path in Path(jupyter_runtime_dir()).glob("jpserver-*.json"):
        with suppress(BadFile):
            state = parse_json(read_text(path), path)
            if not mismatch(state, {"pid": int, "port": int, "url": str, "root_dir": str, "token?": str}):
                yield from [state] if is_alive(state["pid"]) else []


def opened(runs: Path, phase: str, target: str) -> tuple[Path, str] | None:
    """The run folder of a phase and target that a JupyterLab serves already, and its URL; None if there is none."""
    for state in _servers():
        folder = Path(state.get("root_dir", ""))
        if folder.parent == runs:
            with suppress(BadFile):
                events = journals.read(folder / "events.jsonl")
                if events and (events[0].get("phase"), events[0].get("target")) == (phase, target):
                    return folder, _url(state["url"], state.get("token", ""))
    return None


def keep_record(process: subprocess.Popen[bytes], folder: Path, signals: Signals) -> None:
    """Write summary and report whenever a stage has ended or its notebook was saved, until JupyterLab or we end."""
    written = None
    while process.poll() is None and signals.caught is None:
        if (state := _state(folder)) != written:
            with suppress(BadFile):  # the end of the run reports it
                write_record(folder)
            written = state
        with suppress(subprocess.TimeoutExpired):
            process.wait(INTERVAL)


def _state(folder: Path) -> list[Any]:
    """What the record is made of: the stages that ended, and when their notebooks were saved."""
    with suppress(OSError, BadFile):
        summary = journals.summary_of(journals.read(folder / "events.jsonl"))
        ended = [stage for stage in summary.stages if stage.status != "not run"]
        return [(stage, (folder / stage.notebook).stat().st_mtime_ns) for stage in ended if stage.notebook]
    return []


def write_record(folder: Path) -> None:
    """Write the summary of a run by hand, from its journal, and its report."""
    journal = folder / "events.jsonl"
    summary = replace(journals.summary_of(journals.read(journal)), journal=chain.head(journal))
    write_json(folder / "summary.json", asdict(summary))
    write_report(folder, Redactor())
