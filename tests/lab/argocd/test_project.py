"""AppProjects refuse what does not belong to them, as the controller words it."""

import pytest
from fluobook_lab.argocd.configuration import forbids, refusals
from fluobook_lab.argocd.objects import Key

SERVER = "https://kubernetes.default.svc"


def project(**spec):
    rules = {
        "sourceRepos": ["https://git.example.org/*"],
        "destinations": [{"server": SERVER, "namespace": "a-*"}],
        **spec,
    }
    return {"metadata": {"name": "team"}, "spec": rules}


def app(repo="https://git.example.org/infra.git", namespace="a-one", **destination):
    place = {"server": SERVER, "namespace": namespace, **destination}
    return {"spec": {"project": "team", "source": {"repoURL": repo}, "destination": place}}


def test_what_the_project_lists_is_permitted():
    assert refusals(app(), project()) == []
    assert (
        refusals(app(repo="https://git.example.org/infra"), project(sourceRepos=["https://git.example.org/infra.git"]))
        == []
    )


@pytest.mark.parametrize(
    ("application", "rules", "reason"),
    [
        (
            app(repo="https://evil.example.org/x"),
            {},
            "application repo https://evil.example.org/x is not permitted in project 'team'",
        ),
        (
            app(namespace="b"),
            {},
            f"application destination server '{SERVER}' and namespace 'b' do not match any of the allowed",
        ),
        (app(), {"sourceRepos": ["*", "!https://git.example.org/infra"]}, "is not permitted in project 'team'"),
        (
            app(),
            {"destinations": [{"server": "*", "namespace": "*"}, {"server": "*", "namespace": "!a-one"}]},
            "do not match",
        ),
        (app(), {"destinations": []}, "do not match"),
    ],
)
def test_what_the_project_does_not_list_is_refused(application, rules, reason):
    (refusal,) = refusals(application, project(**rules))
    assert reason in refusal


def test_a_missing_project_is_reported():
    assert refusals(app(), None) == ["Application referencing project team which does not exist"]


CLUSTER_ROLE = Key("rbac.authorization.k8s.io", "ClusterRole", "", "x")
DEPLOYMENT = Key("apps", "Deployment", "a-one", "x")


@pytest.mark.parametrize(
    ("key", "rules", "said"),
    [
        (CLUSTER_ROLE, {}, "resource rbac.authorization.k8s.io:ClusterRole is not permitted in project team"),
        (CLUSTER_ROLE, {"clusterResourceWhitelist": [{"group": "*", "kind": "*"}]}, ""),
        (DEPLOYMENT, {}, ""),
        (
            DEPLOYMENT,
            {"namespaceResourceWhitelist": [{"group": "", "kind": "Secret"}]},
            "resource apps:Deployment is not permitted",
        ),
        (
            DEPLOYMENT,
            {"namespaceResourceBlacklist": [{"group": "apps", "kind": "*"}]},
            "resource apps:Deployment is not permitted",
        ),
        (DEPLOYMENT._replace(namespace="b"), {}, "namespace b is not permitted in project 'team'"),
    ],
)
def test_objects_are_let_in_by_kind_and_namespace(key, rules, said):
    told = forbids(project(**rules), app()["spec"]["destination"], key, namespaced=bool(key.namespace))
    assert told.startswith(said)
    assert bool(told) == bool(said)


@pytest.mark.lab
def test_an_application_waits_for_its_project_and_is_held_to_it(world):
    async def test(w):
        w.write(
            {"base/x.yaml": [w.config_map("x"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}}]}
        )
        await w.up()
        w.application("base", "base", project="team", namespace="base")
        told = lambda: [one["message"] for one in w.status("base").get("conditions", ())]  # noqa: E731
        await w.until(lambda: told() == ["Application referencing project team which does not exist"])
        assert w.state("base")[:2] == ("Unknown", "Unknown")
        spec = {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "base"}]}
        owner = {
            "apiVersion": w.api,
            "kind": "AppProject",
            "metadata": {"name": "team", "namespace": "argocd"},
            "spec": spec,
        }
        w.store.create(owner)
        await w.until(lambda: w.state("base")[2] == "Failed")
        assert "resource :Namespace is not permitted in project team" in w.status("base")["operationState"]["message"]
        assert w.store.find("v1", "ConfigMap", "x", "base") is None

    world(test)
