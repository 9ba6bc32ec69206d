"""cluster-gitops read as data: Applications, waves, charts, phase values, and what is wrong with any of them."""

from fluobook.gitops.application import Application, ChartSource
from fluobook.gitops.patches import for_phase, mirrored, patches_for
from fluobook.gitops.root import root_application
from fluobook.gitops.tree import Tree, chart_source, namespaces_needed_before_argocd, read, waves

__all__ = [
    "Application",
    "ChartSource",
    "Tree",
    "chart_source",
    "for_phase",
    "mirrored",
    "namespaces_needed_before_argocd",
    "patches_for",
    "read",
    "root_application",
    "waves",
]
