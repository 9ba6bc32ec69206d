"""What differs between phases: named values from the params, and where the tree says that they belong.

An Application names them in an annotation, beside the values that they replace, so that code holds no list of places:

    fluobook/phase-values: |
      - {path: /spec/source/helm/valuesObject/operator/replicas, value: "{cilium_operator_replicas}"}
      - {kind: CiliumLoadBalancerIPPool, name: mqtt, path: /spec/blocks/0/start, value: "{pool.mqtt.start}"}

Without a kind, the path is in the Application itself; with one, it is in an object that the Application deploys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from fluobook.errors import ParamsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.params import Platform

ANNOTATION = "fluobook/phase-values"
_NAME = re.compile(r"\{([a-z0-9_.-]+)\}")
_ENOUGH_FOR_A_QUORUM = 3


@dataclass(frozen=True)
class PhaseValue:
    """One place, and the value that a phase puts there; `kind` is "" for the Application itself."""

    path: str
    value: str
    kind: str = ""
    name: str = ""


def phase_values(text: str) -> tuple[PhaseValue, ...]:
    """The phase values in an annotation.

    Raises:
        ValueError: it is not a list of such places.
    """
    try:
        return tuple(PhaseValue(**entry) for entry in yaml.safe_load(text) or ())
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{ANNOTATION}: {error}") from error


def values_of(platform: Platform) -> dict[str, Any]:
    """Every named value of a platform.

    Databases and the broker get three instances where three hosts can fail apart, else one: two are no quorum. Where
    they copy their data themselves, their volumes have one copy.
    """
    replicas = platform.storage.replicas
    instances = _ENOUGH_FOR_A_QUORUM if len(platform.failure_domains) >= _ENOUGH_FOR_A_QUORUM else 1
    balancer = platform.network.load_balancer
    return {
        "domain": platform.gitops.domain,
        "acme_email": platform.gitops.acme_email,
        "longhorn_replicas": replicas,
        "database_instances": instances,
        "database_volume_replicas": str(1 if instances > 1 else replicas),
        "cilium_operator_replicas": min(2, len(platform.nodes)),
        "node_prefixes": [str(platform.network.cidr)],
        "node_name_regex": f"^({'|'.join(re.escape(node.name) for node in platform.nodes)})$".replace(r"\-", "-"),
        "l2_announce": balancer.announce,
        **{f"pool.{pool.name}.start": str(pool.start) for pool in balancer.pools},
        **{f"pool.{pool.name}.stop": str(pool.stop) for pool in balancer.pools},
    }


def filled(template: str, values: Mapping[str, Any]) -> Any:
    """The template with its names replaced; "{name}" alone gives the value as it is, whatever its type.

    Raises:
        ParamsError: the platform has no such value.
    """
    names = _NAME.findall(template)
    if missing := [name for name in names if name not in values]:
        raise ParamsError(
            f"the tree asks for {missing[0]}, which this phase does not have",
            cause="a pool of platform.network.load_balancer is missing" if missing[0].startswith("pool.") else "",
            remedy=f"give it in the params, or take it out of the annotation {ANNOTATION}",
        )
    if names and template == f"{{{names[0]}}}":
        return values[names[0]]
    return _NAME.sub(lambda found: str(values[found[1]]), template)


def names_in(template: str) -> list[str]:
    """The names that a template asks for."""
    return _NAME.findall(template)
