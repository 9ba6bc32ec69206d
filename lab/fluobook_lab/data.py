"""The tables beside the lab's modules, and its reader and writer of YAML."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@cache
def table(path: str) -> Any:
    """The content of a YAML file of this package, such as "talos/roles.yaml"; not to be changed."""
    return yaml.load(resources.files(__package__).joinpath(path).read_text(), Loader=LOADER)  # noqa: S506  a safe one


def dump(value: Any, **options: Any) -> str:
    """A value as YAML; `options` are those of `yaml.dump`."""
    return str(yaml.dump(value, Dumper=DUMPER, **options))
