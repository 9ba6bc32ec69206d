"""Where Applications live, what of ours they fetch, where they deploy, and that they keep at it by themselves."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fluobook.errors import ParamsError
from fluobook.gitops.application import FINALIZER
from fluobook.gitops.knowledge import chart_of
from fluobook.gitops.root import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluobook.gitops.application import Application
    from fluobook.gitops.look import Finding, Look

_HERE = "https://kubernetes.default.svc"
_FINALIZERS = {FINALIZER, FINALIZER + "/foreground", FINALIZER + "/background"}
_HARMFUL = {
    "Replace=true": "it deletes and makes anew what it cannot change",
    "Force=true": "it deletes and makes anew what it cannot change",
    "Validate=false": "mistakes would reach the cluster",
}


def applications_are_sound(look: Look) -> Iterator[Finding]:
    """Each is where Argo CD looks for it, has a source that exists, goes where it must, and mends itself."""
    paths = Counter(one.path for one in look.tree.applications if one.path)
    for one in look.tree.applications:
        yield from _place(look, one)
        yield from _care(look, one)
        if paths[one.path] > 1:
            message = f"{one.name} deploys {one.path}, and another Application does so too"
            yield look.at(one.document, "spec", "source", "path").finding("source", message, "give each its own")
    yield from _own(look)


def _place(look: Look, one: Application) -> Iterator[Finding]:
    if one.document.namespace != NAMESPACE:
        at = look.at(one.document, "metadata", "namespace" if one.document.namespace else "name")
        yield at.finding("source", f"{one.name} is not in namespace {NAMESPACE}", "Argo CD looks nowhere else")
    destination = one.document.data["spec"]["destination"]
    if destination.get("server") != _HERE:
        at = look.at(one.document, "spec", "destination", "server")
        yield at.finding("source", f"{one.name} goes to another cluster", f"its server is {_HERE}")
    home = chart_of(one).home
    if home and one.namespace != home:
        at = look.at(one.document, "spec", "destination", "namespace")
        yield at.finding("source", f"{one.name} goes to {one.namespace}", f"{home} is where it works")


def _own(look: Look) -> Iterator[Finding]:
    """What is fetched from this repository: its URL and revision are the params', its folder exists."""
    known = [one.platform.gitops for one in look.phases.values() if not isinstance(one, ParamsError)]
    urls, revisions = {one.repository for one in known}, {one.revision for one in known}
    for one in look.tree.applications:
        inside = one.path.startswith(f"{look.top.name}/")
        if known and inside and one.repo not in urls:
            at = look.at(one.document, "spec", "source", "repoURL")
            yield at.finding("source", f"{one.name} fetches {one.repo}", f"this repository is {min(urls)}")
        if known and inside and one.version not in revisions:
            at = look.at(one.document, "spec", "source", "targetRevision")
            yield at.finding("source", f"{one.name} follows {one.version}", f"the others follow {min(revisions)}")
        if (inside or one.repo in urls) and not look.tree.is_ours(one):
            at = look.at(one.document, "spec", "source", "path")
            yield at.finding("source", f"{one.name}: there is no kustomization in {one.path}", "correct the path")


def _care(look: Look, one: Application) -> Iterator[Finding]:
    policy = one.document.data["spec"].get("syncPolicy") or {}
    automated = policy.get("automated")
    if not isinstance(automated, dict) or not automated.get("selfHeal"):
        at = look.at(one.document, "spec", "syncPolicy", "automated", "selfHeal")
        yield at.finding("source", f"{one.name} does not mend itself", "automated: {selfHeal: true}")
    if not policy.get("retry"):
        at = look.at(one.document, "spec", "syncPolicy")
        yield at.finding("source", f"{one.name} gives up after one failed sync", "add retry, as the others have it")
    for index, option in enumerate(policy.get("syncOptions") or ()):
        if why := _HARMFUL.get(option):
            at = look.at(one.document, "spec", "syncPolicy", "syncOptions", index)
            yield at.finding("source", f"{one.name} has {option}", f"take it out: {why}")
    for index, name in enumerate(one.document.data["metadata"].get("finalizers") or ()):
        if name not in _FINALIZERS:
            at = look.at(one.document, "metadata", "finalizers", index)
            yield at.finding("source", f"nothing ever takes the finalizer {name} off", f"{FINALIZER} is Argo CD's")
