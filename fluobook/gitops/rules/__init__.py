"""The rules of `fluobook check`: each a function from a `Look` to the findings it makes.

Adding one means adding it to `RULES` and planting its mistake in tests/gitops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fluobook.gitops.finding import Finding
from fluobook.gitops.look import Look
from fluobook.gitops.rules import (
    addresses,
    backends,
    builds,
    creation,
    duplicates,
    encryption,
    exposure,
    generators,
    health,
    keeping,
    listing,
    namespaces,
    phases,
    pins,
    pod_security,
    policies,
    pools,
    projects,
    references,
    settings,
    shapes,
    sources,
    validity,
    values,
    waves,
)

Rule = Callable[[Look], Iterator[Finding]]

RULES: dict[str, Rule] = {
    "address": addresses.services_get_an_address,
    "backend": backends.routes_lead_somewhere,
    "build": builds.kustomizations_build,
    "cleartext": encryption.secrets_are_encrypted,
    "duplicate": duplicates.objects_have_one_owner,
    "exposure": exposure.only_what_is_meant_for_it_faces_the_world,
    "generator": generators.generators_list_what_exists,
    "health": health.scripts_run_and_wait,
    "keeping": keeping.what_must_stay_is_not_pruned,
    "key": encryption.keys_are_not_in_the_tree,
    "listing": listing.files_are_listed,
    "mac": encryption.macs_are_intact,
    "namespace": namespaces.namespaces_are_made,
    "phase-value": phases.phases_find_their_places,
    "pin": pins.versions_are_exact,
    "pod-security": pod_security.labels_fit_the_pods,
    "policy": policies.namespaces_deny_first,
    "pool": pools.pools_are_disjoint,
    "project": projects.projects_allow_their_applications,
    "reachability": policies.reachability_is_as_expected,
    "recipient": encryption.recipients_are_right,
    "reference": references.names_point_at_something,
    "server-side": settings.large_objects_are_applied_by_the_server,
    "setting": settings.all_is_set_as_it_must_be,
    "shape": shapes.objects_have_their_shape,
    "sops-rule": creation.creation_rules_leave_nothing_clear,
    "source": sources.applications_are_sound,
    "valid": validity.objects_are_valid,
    "value": values.values_are_known,
    "wave": waves.waves_fit_what_is_needed,
    "wave-table": waves.the_table_tells_the_waves,
}
"""Every rule by the name that its findings carry."""

OF_A_VARIANT = (
    "address",
    "backend",
    "duplicate",
    "exposure",
    "keeping",
    "namespace",
    "phase-value",
    "pin",
    "project",
    "reference",
    "server-side",
    "setting",
    "source",
    "value",
    "wave",
)
"""The rules that look at Applications and what they deploy: a variant of the root has others than bootstrap."""
