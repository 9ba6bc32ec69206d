"""A replacement for KSOPS: decrypts the files that a generator lists, with the real sops. Run by kustomize.

As a legacy plugin (`kubectl kustomize`), it receives a file with the generator and prints the documents. As an exec
function (Argo CD's own kustomize), it receives a ResourceList on standard input and prints one. The age key comes
from sops' own environment; FLUOBOOK_SOPS may name the program, and FLUOBOOK_KSOPS_LOG a file that receives the name of
each decrypted file.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

NO_KEY = 128
"""The exit code of sops when it has no key."""
FIELDS = ("files", "binaryFiles", "envs")
"""Where an entry of `secretFrom` names the files that a Secret is made of."""


class Failed(Exception):
    """sops failed."""


def main(arguments: list[str]) -> int:
    """Decrypt and print; the exit code."""
    if arguments:
        generator = yaml.safe_load(Path(arguments[0]).read_text())
    else:
        generator = yaml.safe_load(sys.stdin)["functionConfig"]
    try:
        texts = [decrypted(file, "--output-type", "yaml") for file in generator.get("files") or ()]
        made = [secret(entry) for entry in generator.get("secretFrom") or ()]
    except Failed as error:
        sys.stderr.write(str(error))
        return 1
    stream = "".join(f"---\n{text}" for text in (*texts, *map(yaml.safe_dump, made)))
    if arguments:
        sys.stdout.write(stream)
    else:
        items = [document for document in yaml.safe_load_all(stream) if document]
        yaml.safe_dump({"apiVersion": "config.kubernetes.io/v1", "kind": "ResourceList", "items": items}, sys.stdout)
    return 0


def decrypted(file: str, *options: str) -> str:
    """The plaintext of a file."""
    command = [os.environ.get("FLUOBOOK_SOPS", "sops"), "decrypt", *options, file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = "Error getting data key: 0 successful groups required, got 0\n" if done.returncode == NO_KEY else ""
        where = f'error decrypting file "{file}" from manifest.Files'
        raise Failed(f"{where}: trouble decrypting file: {why}{done.stderr}")
    if log := os.environ.get("FLUOBOOK_KSOPS_LOG"):
        with Path(log).open("a") as names:
            names.write(f"{file}\n")
    return done.stdout


def secret(entry: dict[str, Any]) -> dict[str, Any]:
    """The Secret that an entry of `secretFrom` describes: a key for each file, and those of dotenv files."""
    values: dict[str, str] = {}
    for name in (*(entry.get("files") or ()), *(entry.get("binaryFiles") or ())):
        key, _, file = name.rpartition("=")
        values[key or Path(file).name] = decrypted(file)
    for file in entry.get("envs") or ():
        lines = (line for line in decrypted(file).splitlines() if line and not line.startswith("#"))
        values |= {key: value for key, _, value in (line.partition("=") for line in lines)}
    head = {"apiVersion": "v1", "kind": "Secret", "metadata": entry.get("metadata") or {}}
    return {**head, "type": entry.get("type") or "Opaque", "stringData": values}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
