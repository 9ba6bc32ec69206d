"""Which machine answered: pure comparisons."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluobook.clients.talos import Applied, MachineIdentity, same_uuid

UUIDS = st.uuids()


@given(UUIDS)
def test_a_uuid_is_itself_in_any_spelling_and_either_byte_order(uuid):
    assert same_uuid(str(uuid), str(uuid).upper())
    assert same_uuid(str(uuid), str(UUID(bytes_le=uuid.bytes)))
    assert same_uuid(str(UUID(bytes_le=uuid.bytes)), str(uuid))


@given(UUIDS, UUIDS)
def test_two_machines_are_distinguished(first, second):
    assert same_uuid(str(first), str(second)) == (second in {first, UUID(bytes_le=first.bytes)})


@pytest.mark.parametrize("nonsense", ["", "not a uuid", "Not Specified"])
def test_what_is_no_uuid_is_nobodys(nonsense):
    assert not same_uuid(nonsense, "6f1e0c5a-7a1b-5c3d-9e8f-000000000010")
    assert not same_uuid(nonsense, nonsense)


def test_a_machine_without_a_uuid_is_not_ours():
    identity = MachineIdentity("", ("bc:24:11:00:00:01",), "key")
    (difference,) = identity.differs_from(uuid="6f1e0c5a-7a1b-5c3d-9e8f-000000000010", mac="BC:24:11:00:00:01")
    assert "unknown" in difference


@pytest.mark.parametrize(
    ("details", "unchanged"),
    [
        ("Dry run summary:\nApplied … (skipped in dry-run).\nConfig diff:\n\nNo changes.", True),
        ("Dry run summary:\n…\nConfig diff:\n\nNo changes.\n", True),
        ("Dry run summary:\n…\nConfig diff:\n\n--- a\n+++ b\n@@ -1 +1 @@\n-a\n+b", False),
        ("Applied configuration without a reboot", False),
    ],
)  # fmt: skip
def test_a_dry_run_says_whether_anything_would_change(details, unchanged):
    assert Applied("NO_REBOOT", details, ()).unchanged is unchanged


def test_a_dry_runs_details_are_not_shown_by_accident():
    assert "secret" not in repr(Applied("NO_REBOOT", "+token: secret", ()))
