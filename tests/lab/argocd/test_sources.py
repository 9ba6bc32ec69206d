"""What comes out of a repository: kustomize with KSOPS, patches of the Application, charts, several sources, errors."""

import base64

import pytest
import yaml

from fluobook.clients import age, sops

pytestmark = pytest.mark.lab
PATH = "base"
KEY = age.generate()


def web(w):
    w.write({"base/kustomization.yaml": {"resources": ["web.yaml"]}, "base/web.yaml": w.workload("Deployment", "web")})


def sops_tree(w):
    """A kustomization whose generator decrypts two files, in the form that the tree holds for Argo CD."""
    for name in ("one", "two"):
        text = yaml.safe_dump({**w.secret(name), "data": None, "stringData": {"word": f"hunter2-{name}"}})
        encrypted = sops.encrypt(
            text, path=w.tree / "x.yaml", recipients=[KEY.recipient], encrypted_regex="^(data|stringData)$"
        )
        w.write({f"base/{name}.sops.yaml": encrypted})
    function = {"config.kubernetes.io/function": "exec:\n  path: ksops\n"}
    generator = {"apiVersion": "viaduct.ai/v1", "kind": "ksops", "metadata": {"name": "g", "annotations": function}}
    w.write(
        {
            "base/generator.yaml": {**generator, "files": ["one.sops.yaml", "two.sops.yaml"]},
            "base/kustomization.yaml": {"generators": ["generator.yaml"]},
        }
    )


def age_key(w, key):
    data = {"keys.txt": base64.b64encode(key.file().encode()).decode()}
    return {**w.secret("sops-age-key"), "data": data}


async def complaint(w, name, kind="ComparisonError"):
    def found():
        return [one["message"] for one in w.status(name).get("conditions", ()) if one["type"] == kind]

    return (await w.until(found, f"{kind} of {name}"))[0]


def test_secrets_are_decrypted_with_the_key_in_the_cluster(world):
    async def test(w):
        sops_tree(w)
        await w.up()
        w.apply(age_key(w, KEY), "argocd")
        w.application("secrets", PATH, namespace="secrets")
        await w.well("secrets")
        live = w.store.get("v1", "Secret", "two", "secrets")
        assert base64.b64decode(live["data"]["word"]) == b"hunter2-two"
        on_disk = [file for file in w.folder.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]
        assert on_disk == []
        assert KEY.secret not in str(w.app("secrets"))

    world(test)


def test_another_key_is_a_comparison_error_in_the_words_of_ksops(world):
    async def test(w):
        sops_tree(w)
        await w.up()
        w.apply(age_key(w, age.generate()), "argocd")
        w.application("secrets", PATH, namespace="secrets")
        message = await complaint(w, "secrets")
        assert "Error getting data key: 0 successful groups required, got 0" in message
        assert w.state("secrets")[:2] == ("Unknown", "Unknown")
        w.apply(age_key(w, KEY), "argocd")
        w.refresh("secrets", "hard")
        await w.well("secrets")
        assert "conditions" not in w.status("secrets")

    world(test)


def test_ksops_needs_its_build_options(world):
    async def test(w):
        sops_tree(w)
        await w.up(**{"kustomize.buildOptions": ""})
        w.apply(age_key(w, KEY), "argocd")
        w.application("secrets", PATH, namespace="secrets")
        assert "--enable-alpha-plugins --enable-exec" in await complaint(w, "secrets")

    world(test)


def test_ksops_needs_its_program_in_the_repo_server(world):
    async def test(w):
        sops_tree(w)
        await w.up()
        w.apply(age_key(w, KEY), "argocd")
        pod = w.store.get("apps/v1", "Deployment", "argocd-repo-server", "argocd")["spec"]["template"]["spec"]
        mounts = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] != "tools"]
        container = {"name": "repo-server", "image": "x", "env": pod["containers"][0]["env"], "volumeMounts": mounts}
        w.apply(w.workload("Deployment", "argocd-repo-server", "argocd", pod={**pod, "containers": [container]}))
        w.application("secrets", PATH, namespace="secrets")
        assert "unable to find plugin root" in await complaint(w, "secrets")

    world(test)


def test_the_applications_own_patches_and_images_are_honoured(world):
    async def test(w):
        web(w)
        await w.up()
        target = {"kind": "Deployment", "name": "web"}
        patch = [{"op": "add", "path": "/spec/replicas", "value": 3}]
        kustomize = {"patches": [{"target": target, "patch": yaml.safe_dump(patch)}], "images": ["lab.invalid/main:9"]}
        source = {"repoURL": w.git.url("infra"), "targetRevision": "main", "path": PATH, "kustomize": kustomize}
        w.application("base", namespace="base", source=source)
        await w.well("base")
        spec = w.store.get("apps/v1", "Deployment", "web", "base")["spec"]
        assert spec["replicas"] == 3
        assert spec["template"]["spec"]["containers"][0]["image"] == "lab.invalid/main:9"

    world(test)


def test_a_patch_that_changes_is_synced_without_a_commit(world):
    async def test(w):
        web(w)
        await w.up()
        w.application("base", PATH, namespace="base")
        await w.well("base")
        kustomize = {
            "patches": [
                {"target": {"kind": "Deployment"}, "patch": '[{"op": "add", "path": "/spec/replicas", "value": 2}]'}
            ]
        }
        w.store.patch(w.api, "Application", "base", "argocd", body={"spec": {"source": {"kustomize": kustomize}}})
        await w.until(lambda: w.store.get("apps/v1", "Deployment", "web", "base")["spec"]["replicas"] == 2)
        await w.well("base")

    world(test)


CHART = "https://charts.example.org"


def chart(w, **helm):
    source = {"repoURL": CHART, "chart": "demo", "targetRevision": "1.2.3", "helm": helm}
    pinned = w.application("pinned", namespace="demo", source=source, create=False)
    w.write({"pins/pinned.yaml": pinned})
    template = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: '{{ .Release.Name }}'}\ndata:\n"
    template += "  words: '{{ .Values.a }} {{ .Values.b }} {{ .Capabilities.KubeVersion }}'\n"
    template += "  routes: '{{ .Capabilities.APIVersions.Has \"example.org/v1\" }}'\n"
    folder = w.folder / "standins" / "charts.example.org" / "demo" / "templates"
    folder.mkdir(parents=True)
    (folder / "x.yaml").write_text(template)
    return source


def test_a_chart_gets_its_values_release_name_and_capabilities(world):
    async def test(w):
        source = chart(w, valuesObject={"a": "one", "b": 2}, releaseName="called")
        await w.up()
        source["repoURL"] = w.charts.url(CHART)
        w.application("demo", namespace="demo", source=source)
        await w.well("demo")
        data = w.store.get("v1", "ConfigMap", "called", "demo")["data"]
        assert data == {"words": "one 2 v1.35.4", "routes": "false"}
        assert w.status("demo")["sync"]["revision"] == "1.2.3"
        assert w.status("demo")["sourceType"] == "Helm"
        w.store.create(w.crd("example.org", "Widget", "widgets"))
        w.refresh("demo", "hard")
        await w.until(lambda: w.store.get("v1", "ConfigMap", "called", "demo")["data"]["routes"] == "true")

    world(test)


def test_values_of_text_parameters_and_another_source_are_merged(world):
    async def test(w):
        source = chart(
            w, valueFiles=["$values/base/values.yaml"], parameters=[{"name": "b", "value": "x", "forceString": True}]
        )
        w.write({"base/values.yaml": {"a": "from git", "b": "hidden"}})
        await w.up()
        source["repoURL"] = w.charts.url(CHART)
        reference = {"repoURL": w.git.url("infra"), "targetRevision": "main", "ref": "values"}
        w.application("demo", namespace="demo", source=None, sources=[source, reference])
        await w.well("demo")
        assert w.store.get("v1", "ConfigMap", "demo", "demo")["data"]["words"].startswith("from git x ")
        assert w.status("demo")["sync"]["revisions"] == ["1.2.3", w.git.head("infra")]

    world(test)


def test_a_missing_chart_version_is_reported(world):
    async def test(w):
        source = chart(w)
        await w.up()
        source |= {"repoURL": w.charts.url(CHART), "targetRevision": "9.9.9"}
        w.application("demo", namespace="demo", source=source)
        message = await complaint(w, "demo")
        assert (
            "failed to generate manifest for source 1 of 1: rpc error: code = Unknown desc = `helm template demo`"
            in message
        )
        assert "9.9.9" in message

    world(test)


def test_a_missing_path_branch_and_repository_have_distinct_messages(world):
    async def test(w):
        w.write({"base/x.yaml": w.config_map("x")})
        await w.up()
        url = w.git.url("infra")
        w.application("path", "nowhere", namespace="x")
        w.application("branch", namespace="x", source={"repoURL": url, "targetRevision": "mian", "path": PATH})
        w.application(
            "repo", namespace="x", source={"repoURL": w.git.url("none"), "targetRevision": "main", "path": PATH}
        )
        assert "nowhere: app path does not exist" in await complaint(w, "path")
        assert "unable to resolve 'mian' to a commit SHA" in await complaint(w, "branch")
        assert "not found" in await complaint(w, "repo")

    world(test)


def test_a_repository_that_is_down_once_is_read_at_the_next_refresh(world):
    async def test(w):
        w.write({"base/x.yaml": w.config_map("x")})
        await w.up()
        w.faults.add("argocd.repository-down-once")
        w.application("base", PATH, namespace="base")
        assert "connection refused" in await complaint(w, "base")
        await w.well("base")

    world(test)


def test_an_object_that_is_there_twice_is_a_warning(world):
    async def test(w):
        w.write({"base/x.yaml": w.config_map("x", a="1"), "base/y.yaml": w.config_map("x", a="2")})
        await w.up()
        w.application("base", PATH, namespace="base")
        assert "appeared 2 times" in await complaint(w, "base", "RepeatedResourceWarning")

    world(test)
