"""Environment variables: the folders that they choose, and those that other processes inherit, never a secret.

The variable with the token of Proxmox VE stays here: helm, kubectl, git, sops, the lab and the kernels of rehearsals do
not receive it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

NAMES = {
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LANGUAGE", "TZ", "TMPDIR", "NO_COLOR"),
    *("LD_LIBRARY_PATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("SSH_AUTH_SOCK", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("FLUOBOOK_HOME", "FLUOBOOK_CACHE", "FLUOBOOK_RENDER", "FLUOBOOK_APPROVE"),
    *("FLUOBOOK_LAB", "FLUOBOOK_LAB_CHARTS", "FLUOBOOK_LAB_SPEED", "FLUOBOOK_RUN"),
}
PREFIXES = ("LC_", "XDG_", "PYTHON", "JUPYTER_", "IPYTHON", "JPY_")


def inherited(also: Iterable[str] = (), *, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables for a child process.

    Args:
        also: further names, such as that of a token which the child needs.
        environment: in place of this process's.
    """
    names = NAMES.union(also)
    given = os.environ if environment is None else environment
    return {
        name: value
        for name, value in given.items()
        if name in names or name.upper() in names or name.startswith(PREFIXES)
    }


def home() -> Path:
    """The folder of kubeconfigs, talosconfigs and labs: $FLUOBOOK_HOME, or ~/.local/state/fluobook."""
    path = os.environ.get("FLUOBOOK_HOME")
    return Path(path).expanduser().absolute() if path else Path.home() / ".local" / "state" / "fluobook"


def cache_folder() -> Path:
    """The folder for what can be created again: $FLUOBOOK_CACHE, or ~/.cache/fluobook."""
    path = os.environ.get("FLUOBOOK_CACHE")
    return Path(path).expanduser() if path else Path.home() / ".cache" / "fluobook"
