"""What Talos' reader and its validation refuse, at whatever depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fluobook_lab.talos import fields
from fluobook_lab.talos.config import InvalidConfigurationError, load
from fluobook_lab.talos.validate import validate

from fluobook.machine import generate
from fluobook.machine.secrets import new_secrets

SCHEMA = Path(__file__).parents[2] / "machine" / "data" / "talos-1.13-config.schema.json"
MADE = generate("lab", "https://10.0.0.10:6443", "1.35.4", new_secrets(), "/dev/sda", cni={"name": "none"})

UNREADABLE = [
    ({"cluster": {"apiServer": {"nonsense": "1"}}}, "cluster:\n    apiServer:\n        nonsense: '1'"),
    ({"machine": {"kubelett": {}}}, "machine:\n    kubelett: {}"),
    ({"cluster": {"proxy": {"disabled": "very"}}}, "cluster.proxy.disabled: cannot unmarshal !!str `very` into bool"),
    ({"cluster": {"network": {"podSubnets": "10.0.0.0/8"}}}, "!!str `10.0.0.0/8` into []string"),
    ({"cluster": {"token": ["a"]}}, "cluster.token: cannot unmarshal !!seq into string"),
    ({"cluster": {"apiServer": {"admissionControl": {"name": "PodSecurity"}}}}, "cannot unmarshal !!map into []"),
    ({"cluster": {"apiServer": {"auditPolicy": "all"}}}, "cluster.apiServer.auditPolicy: cannot unmarshal !!str `all`"),
    ({"cluster": {"ca": {"crt": "not base64!"}}}, "cluster.ca.crt: illegal base64 data"),
    ({"cluster": {"ca": {"cert": ""}}}, "cluster:\n    ca:\n        cert: ''"),
]

INVALID = [
    ({"cluster": {"network": {"dnsDomain": "a b"}}}, '"a b" is not a valid DNS name'),
    ({"cluster": {"network": {"cni": {"name": "cilium"}}}}, 'cni name should be one of ["flannel", "custom", "none"]'),
    ({"cluster": {"network": {"cni": {"name": "none", "urls": ["https://x"]}}}}, '"urls" field should be empty'),
    ({"cluster": {"id": ""}}, "cluster discovery service requires .cluster.id"),
    ({"cluster": {"secret": ""}}, "cluster discovery service requires .cluster.secret"),
    ({"cluster": {"inlineManifests": [{"name": " "}]}}, "inline manifest name can't be empty"),
    ({"cluster": {"inlineManifests": [{"name": "a"}, {"name": "a"}]}}, 'inline manifest name "a" is duplicate'),
    ({"cluster": {"etcd": {"ca": None}}}, "key/cert combination should not be empty"),
    ({"cluster": {"etcd": {"advertisedSubnets": ["here"]}}}, 'etcd advertised subnet is not valid: "here"'),
    ({"machine": {"kubelet": {"nodeIP": {"validSubnets": ["!x"]}}}}, 'kubelet nodeIP subnet is not valid: "x"'),
    ({"machine": {"kubelet": {"extraConfig": {"port": 1}}}}, 'kubelet configuration field "port" can\'t be overridden'),
    ({"machine": {"features": {"hostDNS": {"enabled": False}}}}, "requires hostDNS.enabled to be true"),
    ({"persist": False}, ".persist should be enabled"),
]


def changed(change: dict[str, Any]) -> str:
    """A control plane's configuration with a change laid over it."""

    def lay(below: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
        both = {k: lay(below[k], v) for k, v in over.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
        return below | over | both

    main, *others = MADE.controlplane
    return yaml.safe_dump_all([lay(main, change), *others])


def test_the_fields_are_those_of_talos_own_schema() -> None:
    assert yaml.safe_load(fields.FILE.read_text()) == fields.compact(json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("role", ["controlplane", "worker"])
def test_what_talos_makes_is_read_and_valid(role: str) -> None:
    assert validate(load(yaml.safe_dump_all(MADE.of(role)))) == []


@pytest.mark.parametrize(("change", "told"), UNREADABLE, ids=[told[:40] for _, told in UNREADABLE])
def test_what_no_field_takes_is_not_read(change: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidConfigurationError) as caught:
        load(changed(change))
    assert str(caught.value).startswith("error decoding document /v1alpha1/")
    assert told in str(caught.value)


@pytest.mark.parametrize(("change", "told"), INVALID, ids=[told[:40] for _, told in INVALID])
def test_what_talos_does_not_accept_is_refused_in_its_words(change: dict[str, Any], told: str) -> None:
    config = load(changed(change))
    with pytest.raises(InvalidConfigurationError) as caught:
        validate(config)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"machine": {"network": {"interfaces": [{"interface": "eth0"}]}, "time": {"servers": ["a"]}}},
        {"machine": {"acceptedCAs": [{"crt": ""}]}},
        {"cluster": {"apiServer": {"extraArgs": {"v": 4, "feature-gates": ["A=true"]}}}},
        {"cluster": {"apiServer": {"auditPolicy": {"anything": {"at": ["all"]}}}}},
    ],
)
def test_what_talos_still_reads_is_read(change: dict[str, Any]) -> None:
    validate(load(changed(change)))


def test_other_documents_have_their_fields_too() -> None:
    with pytest.raises(InvalidConfigurationError, match="unknown keys found during decoding:\nhostnam: a"):
        load("apiVersion: v1alpha1\nkind: HostnameConfig\nhostnam: a\n")
