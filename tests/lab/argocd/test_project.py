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
    ("key", "rules", "expected"),
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
def test_objects_are_permitted_by_kind_and_namespace(key, rules, expected):
    refusal = forbids(project(**rules), app()["spec"]["destination"], key, namespaced=bool(key.namespace))
    assert refusal.startswith(expected)
    assert bool(refusal) == bool(expected)


@pytest.mark.lab
def test_an_application_waits_for_its_project_and_is_restricted_by_it(in_lab):
    async def test(lab):
        lab.write(
            {
                "base/x.yaml": [
                    lab.config_map("x"),
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}},
                ]
            }
        )
        await lab.up()
        lab.application("base", "base", project="team", namespace="base")
        messages = lambda: [entry["message"] for entry in lab.status("base").get("conditions", ())]  # noqa: E731
        await lab.until(lambda: messages() == ["Application referencing project team which does not exist"])
        assert lab.state("base")[:2] == ("Unknown", "Unknown")
        spec = {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "base"}]}
        owner = {
            "apiVersion": lab.api,
            "kind": "AppProject",
            "metadata": {"name": "team", "namespace": "argocd"},
            "spec": spec,
        }
        lab.store.create(owner)
        await lab.until(lambda: lab.state("base")[2] == "Failed")
        assert "resource :Namespace is not permitted in project team" in lab.status("base")["operationState"]["message"]
        assert lab.store.find("v1", "ConfigMap", "x", "base") is None

    in_lab(test)
