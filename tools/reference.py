"""Writes the pages of docs/reference that are drawn from the program itself, so that they cannot say something else.

python tools/reference.py            writes them
python tools/reference.py --check    says which differ, and exits 1 if any does
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import yaml
from fluobook_lab.faults import FAULTS
from typer.core import TyperGroup

from fluobook import cli, errors, gitops
from fluobook.failures.catalogue import catalogue
from fluobook.gitops.check import RULES
from fluobook.gitops.tree import NEEDED_BEFORE
from fluobook.stages import catalogue as stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import click

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
WIDTH = 100
HEAD = "<!-- Drawn from the program by tools/reference.py; do not edit. -->\n"


def commands() -> str:
    """Every command with its help."""
    text = (
        "# Commands\n\nPHASE is a name in `params/` or a path to such a file. Commands work from any folder inside the "
    )
    text += "repository. What they return stands in [exit-codes.md](exit-codes.md).\n"
    for name, command in every_command():
        text += f"\n## {name}\n\n```text\n{help_of(name, command)}\n```\n"
    return text


def every_command() -> Iterator[tuple[str, click.Command]]:
    """The program and each of its commands, by the words to type."""

    def below(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield words, command
        if isinstance(command, TyperGroup):
            for name, child in command.commands.items():
                yield from below(f"{words} {name}", child)

    return below("fluobook", typer.main.get_command(cli.app))


def help_of(name: str, command: click.Command) -> str:
    """What `--help` says, at a fixed width."""
    context = command.make_context(name, [], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH)
    told = re.sub(r"  --(install|show)-completion .*?(?=\n  --)\n", "", command.get_help(context), flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in told.splitlines())


def exit_codes() -> str:
    """The table in the docstring of `fluobook.errors`."""
    table = inspect.cleandoc(errors.__doc__ or "").partition("\n\n")[2]
    tree = table.partition("\n\n")[2]
    return (
        "# Exit codes\n\nWhat the command line returns. Each error says what happened, and where they are known the "
        f"likely cause and the next command.\n\n```text\n{tree}\n```\n"
    )


def faults() -> str:
    """The faults a lab can play."""
    rows = (f"| `{name}` | {meaning} |" for name, meaning in sorted(FAULTS.items()))
    return (
        "# Faults\n\nWhat goes wrong in a lab when it is asked for by name; `--fault` may be given several times, and "
        "a name given twice happens twice.\n\n    fluobook lab up phase1 --fault proxmox.start-596-once\n"
        "    fluobook run phase1 --approve all --fault talos.bootstrap-lost-once\n\n"
        "| name | what happens |\n|---|---|\n" + "\n".join(rows) + "\n"
    )


def failures() -> str:
    """The catalogue of known failures."""
    text = (
        "# Known failures\n\nThe catalogue that explains errors: matched by their text, by the code of the system that "
    )
    text += "answered, or by the kind of error. `fluobook explain F28` prints an entry. Failures that occurred in this "
    text += "project are described in [EXPERIENCE.md](../../EXPERIENCE.md).\n"
    for entry in catalogue():
        systems = f" ({', '.join(sorted(entry.systems))})" if entry.systems else ""
        causes = "".join(f"- {cause}\n" for cause in entry.causes)
        text += f"\n## {entry.code} · {entry.title}{systems}\n\n**Likely causes**\n\n{causes}\n"
        text += f"**Remedy:** {entry.remedy}\n\n    {entry.next}\n"
    return text


def list_of_stages() -> str:
    """The stages, what they are for and the notebook of each."""
    text = (
        "# Stages\n\nA stage observes, plans, is approved, applies and verifies. `--only` and `--from` take its name "
    )
    text += "or its number, `--approve` its name.\n"
    for stage in (*stages.STAGES, *stages.DAY_TWO):
        notebook = next(iter(sorted((ROOT / "notebooks").glob(f"{stage.number:02d}_*.ipynb")))).name
        module = next(m for m in vars(stages).values() if inspect.ismodule(m) and getattr(m, "STAGE", None) is stage)
        text += f"\n## {stage.number} · {stage.name}\n\n{stage.title}\n\n{inspect.getdoc(module)}\n\n"
        text += f"Notebook: [{notebook}](../../notebooks/{notebook})\n"
    return text


def platform_tree() -> str:
    """Every Application by wave, the namespaces with their PodSecurity level, and the rules that hold all of it."""
    tree = gitops.read(ROOT)
    text = "# The platform tree\n\nWhat [cluster-gitops](../../cluster-gitops/README.md) deploys, as Argo CD syncs it. "
    text += "Versions stand in each "
    text += "`application.yaml` and nowhere else.\n\n"
    text += "| wave | Application | source | version | namespace | project |\n"
    text += "|---|---|---|---|---|---|\n"
    for one in tree.applications:
        place = one.file.resolve().relative_to(ROOT.resolve())
        version = one.version if one.chart or not tree.is_ours(one) else ""
        source = f"{one.chart}, {one.repo}" if one.chart else f"`{one.path}`" if tree.is_ours(one) else one.repo
        text += (
            f"| {one.wave} | [{one.name}](../../{place}) | {source} | {version} | {one.namespace} | {one.project} |\n"
        )
    text += "\n## Namespaces\n\n| namespace | PodSecurity | made by |\n|---|---|---|\n"
    for document in (one for app in tree.applications for one in tree.deployed_by(app) if one.kind == "Namespace"):
        level = document.data["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        maker = "stage 5" if NEEDED_BEFORE in document.annotations else "Argo CD, wave -4"
        text += f"| {document.name} | {level} | {maker} |\n"
    text += "\n## What differs between phases\n\n| Application | place | value |\n|---|---|---|\n"
    for one in tree.applications:
        for value in one.phase_values:
            place = f"{value.kind} {value.name} " if value.kind else ""
            text += f"| {one.name} | {place}`{value.path}` | `{value.value}` |\n"
    text += "\n## The rules of `fluobook check`\n\n| rule | what holds |\n|---|---|\n"
    for name, rule in sorted(RULES.items()):
        text += f"| {name} | {(inspect.getdoc(rule) or '').splitlines()[0]} |\n"
    return text


def params() -> str:
    """The keys of a params file, from its schema."""
    schema = json.loads((ROOT / "params" / "schema.json").read_text())
    definitions: Mapping[str, Any] = schema["$defs"]
    pins = yaml.safe_load((ROOT / "params" / "versions.yaml").read_text())["pins"]
    rows = [
        f"| `{path}` | {told} | {default} |" for path, told, default in keys("", definitions["Platform"], definitions)
    ]
    pinned = ", ".join(f"{name} {version}" for name, version in pins.items())
    return (
        "# Params\n\nA params file has two keys: `phase` (phase1, phase2 or phase3) and `platform`. Unknown keys are "
        "refused. [phase1.yaml](../../params/phase1.yaml) shows every key with a comment; editors complete them by "
        "[schema.json](../../params/schema.json). `[]` stands for each item of a list. A secret is never a value: it "
        "is `{env: NAME}`, `{file: PATH}` or `{sops: PATH, key: KEY}`.\n\n"
        f"Pinned in [versions.yaml](../../params/versions.yaml), with the matrix of what goes together: {pinned}.\n\n"
        "| key below `platform` | what it is | default |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def keys(path: str, definition: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Every key below a definition: its path, its description and its default."""
    for name, field in definition["properties"].items():
        here = f"{path}.{name}" if path else name
        parts = [field, *field.get("anyOf", ()), field.get("items", {})]
        inside = [part["$ref"].rpartition("/")[2] for part in parts if "$ref" in part]
        if inside and inside[0] != "SecretRef":
            yield from keys(here + "[]" * ("items" in field), known[inside[0]], known)
            continue
        default = "" if name in definition.get("required", ()) else default_of(field)
        yield here, field.get("description", "").replace("|", "\\|"), default


def default_of(field: Mapping[str, Any]) -> str:
    """A default as it would be written; derived values have none."""
    if "default" not in field:
        return "derived" if field.get("type") != "object" else "none"
    value = field["default"]
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if item is not None}
    return "none" if value in (None, {}, []) else f"`{json.dumps(value)}`"


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "exit-codes.md": exit_codes,
    "failures.md": failures,
    "faults.md": faults,
    "params.md": params,
    "platform-tree.md": platform_tree,
    "stages.md": list_of_stages,
}


def drawn(name: str) -> str:
    """A page as the program draws it now."""
    return HEAD + re.sub(r"\n{3,}", "\n\n", PAGES[name]())


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them with what stands there; returns the exit code."""
    differing = 0
    for name in PAGES:
        path, text = FOLDER / name, drawn(name)
        same = path.exists() and path.read_text() == text
        differing += not same
        if not same:
            print(f"{path.relative_to(ROOT)} differs" if "--check" in arguments else path.relative_to(ROOT))
        if not same and "--check" not in arguments:
            path.write_text(text)
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
