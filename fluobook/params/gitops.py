"""What Argo CD is told: the repository, the domain, and mirrors of its sources."""

from __future__ import annotations

from pydantic import Field

from fluobook.params.fields import Domain, Email, Model, RepositoryPath, RepositoryUrl, SourceUrl, Text


class GitOps(Model):
    """Where Argo CD finds the platform, and what differs between sites."""

    repository: RepositoryUrl
    """Git repository that Argo CD reads, https:// or ssh://."""
    revision: Text = "main"
    """Branch, tag or commit."""
    path: RepositoryPath = "cluster-gitops/bootstrap"
    """Folder of the root Application."""
    domain: Domain
    """Domain under which services are reached."""
    acme_email: Email
    """Address that Let's Encrypt writes to."""
    mirrors: dict[SourceUrl, SourceUrl] = Field(default_factory=dict)
    """Beginnings of repoURLs, and what stands in for them (air-gapped sites)."""
