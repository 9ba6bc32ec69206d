"""What reading and validating a machine configuration refuse, at every depth."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from fluobook_lab.talos.config import InvalidConfigurationError, load, validate

from fluobook.machine import generate
from fluobook.machine.secrets import new_secrets

ROOT = Path(__file__).parents[3]
FIELDS = ROOT / "fluobook" / "machine" / "fields.yaml"
SCHEMA = ROOT / "tests" / "machine" / "data" / "talos-1.13-config.schema.json"
GENERATED = generate("lab", "https://10.0.0.10:6443", "1.35.4", new_secrets(), "/dev/sda")

UNREADABLE = [
    ({"cluster": {"apiServer": {"nonsense": "1"}}}, "cluster:\n    apiServer:\n        nonsense: '1'"),
    ({"machine": {"kubelett": {}}}, "machine:\n    kubelett: {}"),
    ({"cluster": {"proxy": {"disabled": "very"}}}, "cluster.proxy.disabled: cannot unmarshal a str into boolean"),
    (
        {"cluster": {"network": {"podSubnets": "10.0.0.0/8"}}},
        "podSubnets: cannot unmarshal a str into []string",
    ),
    ({"cluster": {"token": ["a"]}}, "cluster.token: cannot unmarshal a list into string"),
    ({"cluster": {"apiServer": {"admissionControl": {"name": "PodSecurity"}}}}, "cannot unmarshal a dict into []"),
    ({"cluster": {"apiServer": {"auditPolicy": "all"}}}, "cluster.apiServer.auditPolicy: cannot unmarshal a str"),
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
    """A control plane's configuration with a change merged into it."""

    def merge(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
        both = {k: merge(base[k], v) for k, v in patch.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
        return base | patch | both

    main, *others = GENERATED.controlplane
    return yaml.safe_dump_all([merge(main, change), *others])


def test_the_fields_are_those_of_talos_schema() -> None:
    generator = runpy.run_path(str(ROOT / "tools" / "talos_fields.py"))
    assert yaml.safe_load(FIELDS.read_text()) == generator["fields_of"](json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("role", ["controlplane", "worker"])
def test_a_generated_configuration_is_valid(role: str) -> None:
    assert validate(load(yaml.safe_dump_all(GENERATED.of(role)))) == []


@pytest.mark.parametrize(("change", "text"), UNREADABLE, ids=[text[:40] for _, text in UNREADABLE])
def test_unknown_fields_and_wrong_types_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidConfigurationError) as caught:
        load(changed(change))
    assert str(caught.value).startswith("error decoding document /v1alpha1/")
    assert text in str(caught.value)


@pytest.mark.parametrize(("change", "text"), INVALID, ids=[text[:40] for _, text in INVALID])
def test_an_invalid_configuration_is_refused_in_talos_words(change: dict[str, Any], text: str) -> None:
    config = load(changed(change))
    with pytest.raises(InvalidConfigurationError) as caught:
        validate(config)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"machine": {"network": {"interfaces": [{"interface": "eth0"}]}, "time": {"servers": ["a"]}}},
        {"machine": {"acceptedCAs": [{"crt": ""}]}},
        {"cluster": {"apiServer": {"extraArgs": {"v": 4, "feature-gates": ["A=true"]}}}},
        {"cluster": {"apiServer": {"auditPolicy": {"anything": {"at": ["all"]}}}}},
    ],
)
def test_deprecated_and_free_form_fields_are_accepted(change: dict[str, Any]) -> None:
    validate(load(changed(change)))


def test_the_fields_of_other_documents_are_checked() -> None:
    with pytest.raises(InvalidConfigurationError, match="unknown keys found during decoding:\nhostnam: a"):
        load("apiVersion: v1alpha1\nkind: HostnameConfig\nhostnam: a\n")
