"""Two checkouts never configure one cluster from two secrets bundles."""

from __future__ import annotations

import pytest

from fluobook.clients.proxmox import ProxmoxClient
from fluobook.errors import Conflict, Refused
from fluobook.stages.apply_talos_config.plan import claim, claim_in, fingerprint, require_claim

OURS, THEIRS = "0123456789abcdef", "fedcba9876543210"


@pytest.mark.parametrize(
    ("description", "claimed"),
    [
        ("", ""),
        ("rack 4, ask Ada\n", ""),
        (f"fluobook secrets bundle: {OURS}\n", OURS),
        (f"rack 4\nfluobook secrets bundle: {OURS}\nask Ada", OURS),
        ("see fluobook secrets bundle: of the other", ""),
    ],
)
def test_a_claim_is_a_line_of_the_notes(description, claimed):
    assert claim_in(description) == claimed


@pytest.mark.parametrize(("claimed", "own"), [("", ""), ("", OURS), (OURS, OURS)])
def test_a_free_or_own_claim_is_accepted(claimed, own):
    require_claim(claimed, own, "x.sops.yaml")


@pytest.mark.parametrize(("own", "text"), [("", "which is not here"), (OURS, f"x.sops.yaml is {OURS}")])
def test_the_claim_of_another_bundle_is_refused(own, text):
    with pytest.raises(Refused, match=text) as caught:
        require_claim(THEIRS, own, "x.sops.yaml")
    assert "x.sops.yaml" in caught.value.remedy


@pytest.fixture
def lab(labs):
    lab = labs()
    lab.bring_up("create-vms")
    lab.mark()
    return lab


def checkout(lab, tmp_path, number=2):
    """A context with a bundle of its own, as in another checkout."""
    context = lab.context(secrets={"bundle": str(tmp_path / f"{number}.sops.yaml")})
    context.secrets.create_bundle()
    return context


def notes(lab):
    vm = lab.environment.proxmox["laptop"].inventory.vms[lab.chosen.platform.control_planes[0].vmid]
    return str(vm.config.get("description", ""))


def configured(lab):
    return [r for r in lab.requests("talos") if r["mutating"] and r["path"].endswith("ApplyConfiguration")]


@pytest.mark.lab
def test_the_first_claim_stays_and_the_other_checkout_sends_nothing(lab, tmp_path):
    lab.context().secrets.create_bundle()
    claim(lab.context())
    first = notes(lab)
    assert claim_in(first) == fingerprint(lab.context().secrets.bundle())
    other = checkout(lab, tmp_path)
    with pytest.raises(Refused, match="this cluster is made from the secrets bundle"):
        lab.stage("apply-talos-config", context=other).plan()
    with pytest.raises(Refused, match="this cluster is made from the secrets bundle"):
        claim(other)
    assert (notes(lab), configured(lab)) == (first, [])
    lab.bring_up("apply-talos-config")


@pytest.mark.lab
def test_a_checkout_without_a_bundle_makes_none_once_the_cluster_is_claimed(lab, tmp_path):
    claim(checkout(lab, tmp_path))
    stage = lab.stage("apply-talos-config")
    with pytest.raises(Refused, match="which is not here"):
        stage.plan()
    assert not stage.context.secrets.has_bundle()


@pytest.mark.lab
def test_of_two_claims_at_the_same_moment_one_is_written(lab, tmp_path, monkeypatch):
    first, second = checkout(lab, tmp_path, 1), checkout(lab, tmp_path, 2)
    configure = ProxmoxClient.configure

    def overtaken(client, *args, **options):
        """Between the second's read and its write, the first claims."""
        monkeypatch.setattr(ProxmoxClient, "configure", configure)
        claim(first)
        configure(client, *args, **options)

    monkeypatch.setattr(ProxmoxClient, "configure", overtaken)
    with pytest.raises(Refused, match="this cluster is made from the secrets bundle"):
        claim(second)
    assert claim_in(notes(lab)) == fingerprint(first.secrets.bundle())


@pytest.mark.lab
def test_the_notes_of_an_administrator_stay(lab):
    node = lab.chosen.platform.control_planes[0]
    lab.context().proxmox("laptop").configure("pve1", node.vmid, {"description": "rack 4\nask Ada"})
    lab.bring_up("apply-talos-config")
    assert notes(lab).startswith("rack 4\nask Ada\nfluobook secrets bundle: ")
    assert lab.stage("create-vms").plan().actions == ()


@pytest.mark.lab
def test_a_vm_that_never_stays_the_same_ends_in_the_conflict(lab, tmp_path, monkeypatch):
    def changed(*_args, **_options):
        raise Conflict("checksum mismatch", system="proxmox")

    monkeypatch.setattr(ProxmoxClient, "configure", changed)
    with pytest.raises(Conflict):
        claim(checkout(lab, tmp_path))
