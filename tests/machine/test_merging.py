"""Talos' strategic merge: every rule with an example of its own, and what must hold for any documents."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluobook.errors import ParamsError
from fluobook.failures import present
from fluobook.machine import merge
from fluobook.machine.documents import load


def _merged(left: str, right: str) -> list[dict[str, Any]]:
    return merge(load(left), right)


def _agrees(left: str, right: str, expected: str) -> None:
    assert _merged(left, right) == load(expected)


def test_a_scalar_of_the_patch_wins() -> None:
    _agrees("machine: {token: a, type: worker}", "machine: {token: b}", "machine: {token: b, type: worker}")


@pytest.mark.parametrize("zero", ["''", "0", "null"])
def test_an_empty_value_changes_nothing(zero: str) -> None:
    left = "machine: {token: a, features: {kubePrism: {port: 7445}}}"
    _agrees(left, f"machine: {{token: {zero}, features: {{kubePrism: {{port: {zero}}}}}}}", left)


def test_an_empty_value_is_set_where_there_was_none() -> None:
    _agrees("machine: {nodeLabels: {}}", "machine: {nodeLabels: {a: ''}}", "machine: {nodeLabels: {a: ''}}")


def test_false_always_wins() -> None:
    _agrees(
        "cluster: {proxy: {disabled: true}}",
        "cluster: {proxy: {disabled: false}}",
        "cluster: {proxy: {disabled: false}}",
    )


def test_maps_merge_key_by_key() -> None:
    _agrees(
        "machine: {sysctls: {vm.swappiness: '10', kernel.panic: '5'}}",
        "machine: {sysctls: {kernel.panic: '9', fs.nr_open: '7'}}",
        "machine: {sysctls: {vm.swappiness: '10', kernel.panic: '9', fs.nr_open: '7'}}",
    )


def test_lists_are_joined() -> None:
    _agrees(
        "machine: {certSANs: [a], kernel: {modules: [{name: x}]}}",
        "machine: {certSANs: [a, b], kernel: {modules: [{name: x}]}}",
        "machine: {certSANs: [a, a, b], kernel: {modules: [{name: x}, {name: x}]}}",
    )


@pytest.mark.parametrize("field", ["podSubnets", "serviceSubnets"])
def test_subnets_are_replaced(field: str) -> None:
    _agrees(
        f"cluster: {{network: {{{field}: [10.0.0.0/8], dnsDomain: x}}}}",
        f"cluster: {{network: {{{field}: [10.9.0.0/16, 'fd00::/56']}}}}",
        f"cluster: {{network: {{{field}: [10.9.0.0/16, 'fd00::/56'], dnsDomain: x}}}}",
    )


def test_the_audit_policy_is_replaced_as_a_whole() -> None:
    _agrees(
        "cluster: {apiServer: {auditPolicy: {kind: Policy, rules: [{level: Metadata}]}}}",
        "cluster: {apiServer: {auditPolicy: {rules: [{level: Request}]}}}",
        "cluster: {apiServer: {auditPolicy: {rules: [{level: Request}]}}}",
    )


def test_admission_plugins_meet_by_name() -> None:
    _agrees(
        "cluster: {apiServer: {admissionControl: [{name: A, configuration: {mode: soft, exempt: [x]}}]}}",
        "cluster: {apiServer: {admissionControl: [{name: A, configuration: {mode: hard, exempt: [y]}}, {name: B}]}}",
        "cluster: {apiServer: {admissionControl: [{name: A, configuration: {mode: hard, exempt: [x, y]}}, {name: B}]}}",
    )


def test_interfaces_meet_by_name_else_by_an_equal_selector() -> None:
    _agrees(
        """machine: {network: {interfaces: [
             {interface: eth7, dhcp: true, mtu: 1400},
             {deviceSelector: {busPath: "00:1*"}, addresses: [192.0.2.1/24]}]}}""",
        """machine: {network: {interfaces: [
             {deviceSelector: {busPath: "00:1*"}, addresses: [192.0.2.2/24]},
             {interface: eth8},
             {deviceSelector: {busPath: "00:2*"}},
             {interface: eth7, dhcp: false}]}}""",
        """machine: {network: {interfaces: [
             {interface: eth7, dhcp: false, mtu: 1400},
             {deviceSelector: {busPath: "00:1*"}, addresses: [192.0.2.1/24, 192.0.2.2/24]},
             {interface: eth8},
             {deviceSelector: {busPath: "00:2*"}}]}}""",
    )


def test_vlans_meet_by_their_id() -> None:
    _agrees(
        "machine: {network: {interfaces: [{interface: eth0, vlans: [{vlanId: 7, addresses: [a]}]}]}}",
        "machine: {network: {interfaces: [{interface: eth0, vlans: [{vlanId: 8}, {vlanId: 7, addresses: [b]}]}]}}",
        "machine: {network: {interfaces: [{interface: eth0, vlans: [{vlanId: 7, addresses: [a, b]}, {vlanId: 8}]}]}}",
    )


def test_items_of_one_patch_meet_each_other_too() -> None:
    _agrees(
        "machine: {network: {interfaces: [{interface: eth0}]}}",
        "machine: {network: {interfaces: [{interface: eth0, vlans: [{vlanId: 7, mtu: 1}, {vlanId: 7, dhcp: true}]}]}}",
        "machine: {network: {interfaces: [{interface: eth0, vlans: [{vlanId: 7, mtu: 1, dhcp: true}]}]}}",
    )


def test_arguments_are_replaced_key_by_key_be_they_text_or_lists() -> None:
    for component in ("apiServer", "controllerManager", "proxy", "scheduler", "etcd"):
        _agrees(
            f"cluster: {{{component}: {{extraArgs: {{a: '1', b: [x], c: '3'}}}}}}",
            f"cluster: {{{component}: {{extraArgs: {{a: [y, z], b: '2', c: ''}}}}}}",
            f"cluster: {{{component}: {{extraArgs: {{a: [y, z], b: '2', c: ''}}}}}}",
        )


def test_urls_merge_part_by_part() -> None:
    _agrees(
        "cluster: {controlPlane: {endpoint: 'https://192.0.2.1:6443/k8s'}}",
        "cluster: {controlPlane: {endpoint: 'https://192.0.2.2'}}",
        "cluster: {controlPlane: {endpoint: 'https://192.0.2.2/k8s'}}",
    )


def test_inline_manifests_are_joined_and_begin_with_their_first_full_line() -> None:
    _agrees(
        'cluster: {inlineManifests: [{name: one, contents: "\\na"}]}',
        'cluster: {inlineManifests: [{name: two, contents: "\\n\\nb: 1\\n"}]}',
        'cluster: {inlineManifests: [{name: one, contents: a}, {name: two, contents: "b: 1\\n"}]}',
    )


HOSTNAME = "apiVersion: v1alpha1\nkind: HostnameConfig\n"
EXTENSION = "apiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: nut\n"


def test_other_documents_meet_by_kind_and_name() -> None:
    left = f"{EXTENSION}configFiles: [{{content: one, mountPath: /etc/one}}]\nenvironment: [A=1]"
    right = (
        f"{EXTENSION}configFiles: [{{content: two, mountPath: /etc/two}}, {{content: new, mountPath: /etc/one}}]\n"
        f"environment: [B=2]\n---\n{EXTENSION.replace('nut', 'bolt')}environment: [C=3]"
    )
    expected = (
        f"{EXTENSION}configFiles: [{{content: new, mountPath: /etc/one}}, {{content: two, mountPath: /etc/two}}]\n"
        f"environment: [A=1, B=2]\n---\n{EXTENSION.replace('nut', 'bolt')}environment: [C=3]"
    )
    _agrees(left, right, expected)


def test_a_document_without_partner_is_added_even_if_it_says_nothing_more() -> None:
    added = "{apiVersion: v1alpha1, kind: DHCPv4Config, name: net0}"
    assert _merged("machine: {type: worker}", added) == [{"machine": {"type": "worker"}}, *load(added)]


def test_firewall_rules_are_replaced() -> None:
    rule = "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: r\n"
    _agrees(
        f"{rule}ingress: [{{subnet: 10.0.0.0/8}}]\nportSelector: {{protocol: tcp, ports: [1, 2]}}",
        f"{rule}ingress: [{{subnet: 192.0.2.0/24}}]\nportSelector: {{ports: [3]}}",
        f"{rule}ingress: [{{subnet: 192.0.2.0/24}}]\nportSelector: {{protocol: tcp, ports: [3]}}",
    )


def test_image_rules_meet_by_pattern_and_are_replaced() -> None:
    head = "apiVersion: v1alpha1\nkind: ImageVerificationConfig\n"
    _agrees(
        f"{head}rules: [{{image: a/*, skip: true}}, {{image: b/*, skip: true}}]",
        f"{head}rules: [{{image: c/*}}, {{image: a/*, keyless: {{issuer: i}}}}]",
        f"{head}rules: [{{image: a/*, keyless: {{issuer: i}}}}, {{image: b/*, skip: true}}, {{image: c/*}}]",
    )


def test_of_two_image_rules_with_one_pattern_the_last_is_replaced() -> None:
    head = "apiVersion: v1alpha1\nkind: ImageVerificationConfig\n"
    _agrees(
        f"{head}rules: [{{image: a/*}}, {{image: a/*}}]",
        f"{head}rules: [{{image: a/*, skip: true}}]",
        f"{head}rules: [{{image: a/*}}, {{image: a/*, skip: true}}]",
    )


def test_zero_counts_where_talos_tells_it_from_nothing() -> None:
    bond = "apiVersion: v1alpha1\nkind: BondConfig\nname: b\n"
    _agrees(f"{bond}miimon: 100\nmtu: 9000", f"{bond}miimon: 0\nmtu: 0", f"{bond}miimon: 0\nmtu: 9000")


def test_off_is_a_word() -> None:
    head = "apiVersion: v1alpha1\nkind: HostnameConfig\n"
    assert _merged(f"{head}auto: stable", f"{head}auto: off\nhostname: no")[0]["auto"] == "off"


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (
            "machine: {sysctls: {a: '1', b: '2'}}",
            "machine: {sysctls: {a: {$patch: delete}}}",
            "machine: {sysctls: {b: '2'}}",
        ),
        ("machine: {sysctls: {a: '1'}, token: t}", "machine: {sysctls: {a: {$patch: delete}}}", "machine: {token: t}"),
        (
            "machine: {network: {hostname: x}}",
            "machine: {network: {hostname: {$patch: delete}}}",
            "machine: {network: {}}",
        ),
        ("machine: {network: {hostname: x}, token: t}", "machine: {network: {$patch: delete}}", "machine: {token: t}"),
        (
            "cluster: {apiServer: {admissionControl: [{name: A}, {name: B}]}}",
            "cluster: {apiServer: {admissionControl: [{name: A, $patch: delete}]}}",
            "cluster: {apiServer: {admissionControl: [{name: B}]}}",
        ),
        (
            "cluster: {clusterName: c, apiServer: {image: i, admissionControl: [{name: A}]}}",
            "cluster: {apiServer: {admissionControl: [{$patch: delete, name: A}]}}",
            "cluster: {clusterName: c, apiServer: {image: i}}",
        ),
        (
            "machine: {network: {interfaces: [{interface: eth0, mtu: 9}, {interface: eth1}]}}",
            "machine: {network: {interfaces: [{interface: eth0, $patch: delete}, {interface: eth0, dhcp: true}]}}",
            "machine: {network: {interfaces: [{interface: eth1}, {interface: eth0, dhcp: true}]}}",
        ),
        (
            "machine: {token: t}\n---\n" + EXTENSION,
            EXTENSION + "$patch: delete",
            "machine: {token: t}",
        ),
        (
            EXTENSION + "environment: [A=1]",
            EXTENSION + "$patch: delete\n---\n" + EXTENSION + "environment: [B=2]",
            EXTENSION + "environment: [B=2]",
        ),
    ],
    ids=[
        "key",
        "last key",
        "field",
        "map",
        "item",
        "last item",
        "item and new one",
        "document",
        "document and new one",
    ],
)
def test_patch_delete_takes_it_out(left: str, right: str, expected: str) -> None:
    _agrees(left, right, expected)


@pytest.mark.parametrize(
    "right",
    [
        "machine: {sysctls: {b: {$patch: delete}}}",
        "machine: {kubelt: {$patch: delete}}",
        "apiVersion: v1alpha1\nkind: HostnameConfg\n$patch: delete",
        "machine: {network: {hostname: {$patch: delete}}}",
        "machine: {certSANs: [{name: x, $patch: delete}]}",
        "cluster: {apiServer: {admissionControl: [{name: Z, $patch: delete}]}}",
        "cluster: {apiServer: {admissionControl: {A: {$patch: delete}}}}",
        EXTENSION + "$patch: delete",
    ],
)
def test_deleting_what_is_not_there_is_an_error(right: str) -> None:
    left = "machine: {sysctls: {a: '1'}, certSANs: [x]}\ncluster: {apiServer: {admissionControl: [{name: A}]}}"
    with pytest.raises(ParamsError, match="not there"):
        _merged(left, right)


@pytest.mark.parametrize(
    "right",
    ["machine: {kubelet: {$patch: delete}}", "cluster: {clusterName: {$patch: delete}}", f"{HOSTNAME}$patch: delete\n"],
)
def test_an_absent_document_or_field_is_deleted_already(right: str) -> None:
    left = "machine: {type: worker}\ncluster: {id: a}"
    assert _merged(left, right) == load(left)


def test_what_a_patch_deletes_goes_before_what_it_adds() -> None:
    (document,) = _merged(f"{HOSTNAME}hostname: a\n", f"{HOSTNAME}auto: stable\n---\n{HOSTNAME}$patch: delete\n")
    assert document == {"apiVersion": "v1alpha1", "kind": "HostnameConfig", "auto": "stable"}


@pytest.mark.parametrize(
    ("right", "problem"),
    [
        ("[{op: add, path: /machine/token, value: x}]", "consists of mappings"),
        ("{op: remove, path: /machine/token}", "JSON 6902"),
        ("machine: {token: {$patch: replace}}", "only `\\$patch: delete`"),
        ("machine: {network: {interfaces: [{interface: eth0, vip: {$patch: delete}}]}}", "part of a list's item"),
        ("machine: {network: {interfaces: [{$patch: delete}]}}", "which item"),
        ("version: v1alpha1\n$patch: delete", "cannot delete the v1alpha1"),
        ("machine: {token: [x]}", "single value, not a list"),
        ("machine: {certSANs: x}", "list, not a single value"),
        ("cluster: {apiServer: {extraArgs: [x]}}", "map, not a list"),
        ("cluster: {apiServer: {admissionControl: [x]}}", "not a map"),
        ("machines: {token: x}", "unknown keys: machines"),
        ("kind: HostnameConfig\nauto: stable", "both apiVersion and kind"),
        ("machine: {token: 'x", "not YAML"),
        ("just text", "consists of mappings"),
    ],
)
def test_a_patch_that_talos_would_not_take_is_refused(right: str, problem: str) -> None:
    left = (
        "machine: {token: t, certSANs: [a]}\ncluster: {apiServer: {extraArgs: {a: b}, admissionControl: [{name: A}]}}"
    )
    with pytest.raises(ParamsError, match=problem):
        _merged(left, right)


def test_a_json_patch_as_data_is_refused_too() -> None:
    with pytest.raises(ParamsError, match="JSON 6902"):
        merge([{"machine": {}}], [{"op": "add", "path": "/machine/token", "value": "x"}])


def test_a_refused_patch_does_not_show_its_content() -> None:
    with pytest.raises(ParamsError) as caught:
        _merged("machine: {token: t}", "machine: {token: 'hush\n  : {")
    assert "hush" not in present(caught.value).text()


_KEYS = st.sampled_from(["token", "kubelet", "a", "b", "image", "nodeLabels"])
_SCALARS = st.one_of(st.booleans(), st.integers(0, 9), st.text("xyz", max_size=2))
_MAPS = st.recursive(
    st.dictionaries(_KEYS, _SCALARS, max_size=4), lambda m: st.dictionaries(_KEYS, m | _SCALARS, max_size=4)
)
_LISTS = st.dictionaries(_KEYS, st.lists(_SCALARS, max_size=3), max_size=4)


def _documents(machine: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"version": "v1alpha1", "machine": machine}]


def _try(documents: list[dict[str, Any]], patch: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    try:
        return merge(documents, patch)
    except ParamsError:
        return None


@given(_MAPS, _MAPS)
def test_merging_twice_is_merging_once_where_there_are_no_lists(left: dict[str, Any], right: dict[str, Any]) -> None:
    once = _try(_documents(left), _documents(right))
    if once is not None:
        assert merge(once, _documents(right)) == once


@given(_MAPS | _LISTS, _MAPS | _LISTS)
def test_neither_side_is_changed_and_nothing_is_shared(left: dict[str, Any], right: dict[str, Any]) -> None:
    documents, patch = _documents(left), _documents(right)
    before = copy.deepcopy((documents, patch))
    result = _try(documents, patch)
    for document in result or []:
        _spoil(document)
    assert (documents, patch) == before


@given(_MAPS | _LISTS)
def test_an_empty_patch_changes_nothing(left: dict[str, Any]) -> None:
    documents = _documents(left)
    assert merge(documents, []) == merge(documents, {"machine": {}}) == merge(documents, "") == documents


@given(_MAPS, _MAPS)
def test_what_the_patch_says_is_in_the_result_and_what_it_does_not_mention_stays(
    left: dict[str, Any], right: dict[str, Any]
) -> None:
    result = _try(_documents(left), _documents(right))
    if result is not None:
        _check(left, right, result[0]["machine"])


def _check(left: Any, right: Any, result: Any) -> None:
    for key in left.keys() | right.keys():
        if key not in right:
            assert result[key] == left[key]
        elif isinstance(right[key], dict):
            _check(left.get(key) or {}, right[key], result[key])
        elif right[key] or right[key] is False:
            assert result[key] is right[key] or result[key] == right[key]


def _spoil(value: Any) -> None:
    if isinstance(value, dict):
        for each in value.values():
            _spoil(each)
        value["spoilt"] = True
    elif isinstance(value, list):
        value.append("spoilt")
