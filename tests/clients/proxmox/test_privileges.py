import pytest
from fluobook_lab.proxmox import Token, administrator
from hypothesis import given
from hypothesis import strategies as st

from fluobook.clients.proxmox.privileges import Need, grant_commands, missing, required

SITE = {"hosts": ["pve1"], "image_storages": ["local"], "disk_storages": ["local-lvm"], "bridge": "vmbr0"}
TOKEN = "fluobook@pve!fluobook"


@pytest.mark.parametrize(
    ("major", "has", "has_not"), [(8, "VM.Monitor", "VM.GuestAgent.Audit"), (9, "VM.GuestAgent.Audit", "VM.Monitor")]
)
def test_the_guest_agents_privilege_depends_on_the_version(major, has, has_not):
    names = {need.privilege for need in required(major, **SITE)}
    assert has in names
    assert has_not not in names


def test_each_need_stands_on_its_path():
    needs = required(9, **SITE)
    assert Need("/storage/local", "Datastore.AllocateTemplate") in needs
    assert Need("/storage/local-lvm", "Datastore.AllocateSpace") in needs
    assert Need("/storage/local-lvm", "Datastore.AllocateTemplate") not in needs
    assert Need("/nodes/pve1", "Sys.AccessNetwork") in needs
    assert Need("/sdn/zones/localnetwork/vmbr0", "SDN.Use") in needs
    assert len(set(needs)) == len(needs)


def test_a_vlan_tag_has_a_path_of_its_own():
    bridge, tagged = "/sdn/zones/localnetwork/vmbr0", "/sdn/zones/localnetwork/vmbr0/42"
    needs = [need for need in required(9, **SITE, vlan=42) if need.path.startswith("/sdn")]
    assert needs == [Need(bridge, "SDN.Audit"), Need(tagged, "SDN.Use")]
    assert missing(needs, {bridge: {"SDN.Audit": 1, "SDN.Use": 1}}) == ()
    assert missing(needs, {bridge: {"SDN.Audit": 0, "SDN.Use": 0}}) == (Need(tagged, "SDN.Use"),)
    assert missing(needs, {bridge: {"SDN.Audit": 1}, tagged: {"SDN.Use": 0}}) == ()
    assert "pveum acl modify /sdn/zones/localnetwork/vmbr0/42 --tokens" in grant_commands(needs[1:], TOKEN)[1]


def test_an_administrators_own_cpu_model_needs_the_right_to_audit_all_nodes():
    added = set(required(9, **SITE, cpu="custom-db")) - set(required(9, **SITE, cpu="host"))
    assert added == {Need("/nodes", "Sys.Audit")}


def test_rights_on_the_pool_or_on_all_vms_are_enough_for_vms_in_a_pool():
    needs = [need for need in required(9, **SITE, pool="prod/k8s") if need.privilege.startswith("VM.")]
    rights = dict.fromkeys((need.privilege for need in needs), 1)
    assert len(needs) == len([need for need in required(9, **SITE) if need.path == "/vms"])
    for path in ("/pool/prod/k8s", "/pool/prod", "/vms", "/"):
        assert missing(needs, {path: rights}) == ()
    assert missing(needs, {"/pool/test": rights}) == tuple(needs)
    assert "pveum acl modify /pool/prod/k8s --tokens" in grant_commands(needs, TOKEN)[1]


def test_an_administrator_lacks_nothing():
    for major in (8, 9):
        held = {"/": dict.fromkeys(administrator(major)["/"], 1)}
        assert missing(required(major, **SITE), held) == ()


def test_a_token_without_rights_lacks_everything():
    assert missing(required(9, **SITE), {}) == required(9, **SITE)


def test_a_right_that_does_not_propagate_holds_on_its_own_path_only():
    needs = (Need("/vms", "VM.Audit"), Need("/storage/local", "Datastore.Audit"))
    held = {"/vms": {"VM.Audit": 0}, "/storage": {"Datastore.Audit": 0}}
    assert missing(needs, held) == (Need("/storage/local", "Datastore.Audit"),)


def test_an_entry_for_a_path_replaces_what_stands_above_it():
    held = {"/": {"Datastore.Audit": 1, "Datastore.AllocateSpace": 1}, "/storage/local": {"Datastore.Audit": 1}}
    lacking = (Need("/storage/local", "Datastore.AllocateSpace"),)
    assert missing((*lacking, Need("/storage/local", "Datastore.Audit")), held) == lacking


def test_the_commands_give_a_role_to_the_token_and_to_a_user_who_lacks_it():
    role, token, user = grant_commands([Need("/nodes/pve1", "Sys.AccessNetwork")], TOKEN)
    assert role.endswith("pveum role modify fluobook-nodes-pve1 --append 1 --privs 'Sys.AccessNetwork Sys.Audit'")
    assert token == "pveum acl modify /nodes/pve1 --tokens 'fluobook@pve!fluobook' --roles fluobook-nodes-pve1"
    guard, _, grant = user.partition(" || ")
    assert guard == "pveum user permissions 'fluobook@pve' --path /nodes/pve1 | grep -qw Sys.AccessNetwork"
    assert grant == "pveum acl modify /nodes/pve1 --users 'fluobook@pve' --roles fluobook-nodes-pve1"


@given(st.sets(st.sampled_from(required(9, **SITE)), min_size=1))
def test_what_the_commands_grant_is_enough_and_takes_nothing_away(lost):
    """As Proxmox VE does it: a path with an entry of its own has only what stands there."""
    everything = required(9, **SITE)
    granted = {"/": set(administrator()["/"]) - {need.privilege for need in lost}}
    lacking = missing(everything, {"/": dict.fromkeys(granted["/"], 1)})
    privileges: set[str] = set()
    for line in grant_commands(lacking, TOKEN, among=everything):
        if "--privs" in line:
            privileges = set(line.split("'")[1].split())
        elif "--tokens" in line:
            granted[line.split()[3]] = privileges
    token = Token(TOKEN, "secret", granted)
    assert [need for need in everything if not token.may(need.path, need.privilege)] == []
