"""cluster-gitops as data: Applications, waves, charts, phase values, and the rules of `fluobook check`."""

from fluobook.gitops.components import of
from fluobook.gitops.root import for_phase, own_source, patches_for, root_application
from fluobook.gitops.secrets import EncryptedFile, encrypted_files, lab_recipients
from fluobook.gitops.tree import (
    Application,
    ChartSource,
    Tree,
    chart_source,
    namespaces_needed_before_argocd,
    read,
    render_chart,
    waves,
)

__all__ = [
    "Application",
    "ChartSource",
    "EncryptedFile",
    "Tree",
    "chart_source",
    "encrypted_files",
    "for_phase",
    "lab_recipients",
    "namespaces_needed_before_argocd",
    "of",
    "own_source",
    "patches_for",
    "read",
    "render_chart",
    "root_application",
    "waves",
]
