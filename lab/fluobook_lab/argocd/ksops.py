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

import yaml

NO_KEY = 128
"""The exit code of sops when it has no key."""


def main(arguments: list[str]) -> int:
    """Decrypt and print; the exit code."""
    if arguments:
        generator = yaml.safe_load(Path(arguments[0]).read_text())
    else:
        generator = yaml.safe_load(sys.stdin)["functionConfig"]
    texts = []
    for file in generator.get("files") or ():
        command = [os.environ.get("FLUOBOOK_SOPS", "sops"), "decrypt", "--output-type", "yaml", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = "Error getting data key: 0 successful groups required, got 0\n" if done.returncode == NO_KEY else ""
            where = f'error decrypting file "{file}" from manifest.Files'
            sys.stderr.write(f"{where}: trouble decrypting file: {why}{done.stderr}")
            return 1
        texts.append(f"---\n{done.stdout}")
        if log := os.environ.get("FLUOBOOK_KSOPS_LOG"):
            with Path(log).open("a") as names:
                names.write(f"{file}\n")
    if arguments:
        sys.stdout.write("".join(texts))
    else:
        items = [document for document in yaml.safe_load_all("".join(texts)) if document]
        yaml.safe_dump({"apiVersion": "config.kubernetes.io/v1", "kind": "ResourceList", "items": items}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
