"""A kustomize exec plugin in the place of KSOPS: decrypts the files that its generator lists, with the real sops.

Run by kustomize as `ksops <file with the generator>` in the folder of the kustomization. The key comes by environment
(SOPS_AGE_KEY); FLUOBOOK_SOPS is the sops program, FLUOBOOK_KSOPS_LOG a file that gets one line for each file decrypted.
"""

import os
import subprocess
import sys
from pathlib import Path

import yaml

PLAIN = "no SOPS metadata"


def main(generator: str) -> int:
    """Print the documents of every file that the generator lists; the exit code."""
    for listed in yaml.safe_load(Path(generator).read_text()).get("files") or ():
        command = [os.environ["FLUOBOOK_SOPS"], "decrypt", "--output-type", "yaml", listed]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = "Error getting data key: 0 successful groups required, got 0\n" if done.returncode == 128 else ""  # noqa: PLR2004
            sys.stderr.write(
                f'error decrypting file "{listed}" from manifest.Files: trouble decrypting file: {why}{done.stderr}'
            )
            return 1
        sys.stdout.write("---\n" + done.stdout)
        with Path(os.environ["FLUOBOOK_KSOPS_LOG"]).open("a") as log:
            log.write(f"{listed}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
