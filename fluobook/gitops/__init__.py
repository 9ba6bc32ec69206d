"""cluster-gitops read as data: Applications, waves, charts, phase values, and what is wrong with any of them."""

from fluobook.gitops.application import Application, ChartSource
from fluobook.gitops.patches import for_phase, mirrored, patches_for
from fluobook.gitops.root import root_application
from fluobook.gitops.secrets import EncryptedFile, encrypted_files, lab_recipients
from fluobook.gitops.tree import Tree, chart_source, namespaces_needed_before_argocd, read, render_chart, waves

__all__ = [
    "Application",
    "ChartSource",
    "EncryptedFile",
    "Tree",
    "chart_source",
    "encrypted_files",
    "for_phase",
    "lab_recipients",
    "mirrored",
    "namespaces_needed_before_argocd",
    "patches_for",
    "read",
    "render_chart",
    "root_application",
    "waves",
]
