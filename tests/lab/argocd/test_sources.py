"""What comes out of a repository: kustomize with KSOPS, patches of the Application, charts, several sources, errors."""

import base64

import pytest
import yaml

from fluobook.clients import age, sops

pytestmark = pytest.mark.lab
PATH = "base"
KEY = age.generate()


def web(lab):
    lab.write(
        {"base/kustomization.yaml": {"resources": ["web.yaml"]}, "base/web.yaml": lab.workload("Deployment", "web")}
    )


def sops_tree(lab):
    """A kustomization whose generator decrypts two files, in the form that the tree holds for Argo CD."""
    for name in ("one", "two"):
        text = yaml.safe_dump({**lab.secret(name), "data": None, "stringData": {"word": f"hunter2-{name}"}})
        encrypted = sops.encrypt(
            text, path=lab.tree / "x.yaml", recipients=[KEY.recipient], encrypted_regex="^(data|stringData)$"
        )
        lab.write({f"base/{name}.sops.yaml": encrypted})
    function = {"config.kubernetes.io/function": "exec:\n  path: ksops\n"}
    generator = {"apiVersion": "viaduct.ai/v1", "kind": "ksops", "metadata": {"name": "g", "annotations": function}}
    lab.write(
        {
            "base/generator.yaml": {**generator, "files": ["one.sops.yaml", "two.sops.yaml"]},
            "base/kustomization.yaml": {"generators": ["generator.yaml"]},
        }
    )


def age_key(lab, key):
    data = {"keys.txt": base64.b64encode(key.file().encode()).decode()}
    return {**lab.secret("sops-age-key"), "data": data}


async def condition(lab, name, kind="ComparisonError"):
    def messages():
        return [entry["message"] for entry in lab.status(name).get("conditions", ()) if entry["type"] == kind]

    return (await lab.until(messages, f"{kind} of {name}"))[0]


def test_secrets_are_decrypted_with_the_key_in_the_cluster(in_lab):
    async def test(lab):
        sops_tree(lab)
        await lab.up()
        lab.apply(age_key(lab, KEY), "argocd")
        lab.application("secrets", PATH, namespace="secrets")
        await lab.well("secrets")
        live = lab.store.get("v1", "Secret", "two", "secrets")
        assert base64.b64decode(live["data"]["word"]) == b"hunter2-two"
        on_disk = [file for file in lab.folder.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]
        assert on_disk == []
        assert KEY.secret not in str(lab.app("secrets"))

    in_lab(test)


def test_a_generator_makes_secrets_of_encrypted_files(in_lab):
    async def test(lab):
        sops_tree(lab)
        for name, text in (("bridge.sops.env", "USER=gateway\nWORD=hunter2-three\n"), ("key.sops.txt", "hunter2-four")):
            lab.write({f"base/in/{name}": sops.encrypt(text, path=lab.tree / name, recipients=[KEY.recipient])})
        generator = yaml.safe_load((lab.tree / "base/generator.yaml").read_text())
        made = {"metadata": {"name": "made"}, "envs": ["./in/bridge.sops.env"], "files": ["key=in/key.sops.txt"]}
        lab.write({"base/generator.yaml": {**generator, "files": ["./one.sops.yaml"], "secretFrom": [made]}})
        await lab.up()
        lab.apply(age_key(lab, KEY), "argocd")
        lab.application("secrets", PATH, namespace="secrets")
        await lab.well("secrets")
        data = lab.store.get("v1", "Secret", "made", "secrets")["data"]
        values = {key: base64.b64decode(value).decode() for key, value in data.items()}
        assert values == {"USER": "gateway", "WORD": "hunter2-three", "key": "hunter2-four"}
        assert lab.store.find("v1", "Secret", "one", "secrets")

    in_lab(test)


def test_another_key_is_a_comparison_error_in_the_words_of_ksops(in_lab):
    async def test(lab):
        sops_tree(lab)
        await lab.up()
        lab.apply(age_key(lab, age.generate()), "argocd")
        lab.application("secrets", PATH, namespace="secrets")
        message = await condition(lab, "secrets")
        assert "Error getting data key: 0 successful groups required, got 0" in message
        assert lab.state("secrets")[:2] == ("Unknown", "Unknown")
        lab.apply(age_key(lab, KEY), "argocd")
        lab.refresh("secrets", "hard")
        await lab.well("secrets")
        assert "conditions" not in lab.status("secrets")

    in_lab(test)


def test_ksops_needs_its_build_options(in_lab):
    async def test(lab):
        sops_tree(lab)
        await lab.up(**{"kustomize.buildOptions": ""})
        lab.apply(age_key(lab, KEY), "argocd")
        lab.application("secrets", PATH, namespace="secrets")
        assert "--enable-alpha-plugins --enable-exec" in await condition(lab, "secrets")

    in_lab(test)


def test_ksops_needs_its_program_in_the_repo_server(in_lab):
    async def test(lab):
        sops_tree(lab)
        await lab.up()
        lab.apply(age_key(lab, KEY), "argocd")
        pod = lab.store.get("apps/v1", "Deployment", "argocd-repo-server", "argocd")["spec"]["template"]["spec"]
        mounts = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] != "tools"]
        container = {"name": "repo-server", "image": "x", "env": pod["containers"][0]["env"], "volumeMounts": mounts}
        lab.apply(lab.workload("Deployment", "argocd-repo-server", "argocd", pod={**pod, "containers": [container]}))
        lab.application("secrets", PATH, namespace="secrets")
        assert "unable to find plugin root" in await condition(lab, "secrets")

    in_lab(test)


def test_the_applications_own_patches_and_images_are_honoured(in_lab):
    async def test(lab):
        web(lab)
        await lab.up()
        target = {"kind": "Deployment", "name": "web"}
        patch = [{"op": "add", "path": "/spec/replicas", "value": 3}]
        kustomize = {"patches": [{"target": target, "patch": yaml.safe_dump(patch)}], "images": ["lab.invalid/main:9"]}
        source = {"repoURL": lab.git.url("infra"), "targetRevision": "main", "path": PATH, "kustomize": kustomize}
        lab.application("base", namespace="base", source=source)
        await lab.well("base")
        spec = lab.store.get("apps/v1", "Deployment", "web", "base")["spec"]
        assert spec["replicas"] == 3
        assert spec["template"]["spec"]["containers"][0]["image"] == "lab.invalid/main:9"

    in_lab(test)


def test_a_patch_that_changes_is_synced_without_a_commit(in_lab):
    async def test(lab):
        web(lab)
        await lab.up()
        lab.application("base", PATH, namespace="base")
        await lab.well("base")
        kustomize = {
            "patches": [
                {"target": {"kind": "Deployment"}, "patch": '[{"op": "add", "path": "/spec/replicas", "value": 2}]'}
            ]
        }
        lab.store.patch(lab.api, "Application", "base", "argocd", body={"spec": {"source": {"kustomize": kustomize}}})
        await lab.until(lambda: lab.store.get("apps/v1", "Deployment", "web", "base")["spec"]["replicas"] == 2)
        await lab.well("base")

    in_lab(test)


CHART = "https://charts.example.org"


def chart(lab, **helm):
    source = {"repoURL": CHART, "chart": "demo", "targetRevision": "1.2.3", "helm": helm}
    pinned = lab.application("pinned", namespace="demo", source=source, create=False)
    lab.write({"pins/pinned.yaml": pinned})
    template = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: '{{ .Release.Name }}'}\ndata:\n"
    template += "  words: '{{ .Values.a }} {{ .Values.b }} {{ .Capabilities.KubeVersion }}'\n"
    template += "  routes: '{{ .Capabilities.APIVersions.Has \"example.org/v1\" }}'\n"
    folder = lab.folder / "standins" / "charts.example.org" / "demo" / "templates"
    folder.mkdir(parents=True)
    (folder / "x.yaml").write_text(template)
    return source


def test_a_chart_gets_its_values_release_name_and_capabilities(in_lab):
    async def test(lab):
        source = chart(lab, valuesObject={"a": "one", "b": 2}, releaseName="called")
        await lab.up()
        source["repoURL"] = lab.charts.url(CHART)
        lab.application("demo", namespace="demo", source=source)
        await lab.well("demo")
        data = lab.store.get("v1", "ConfigMap", "called", "demo")["data"]
        assert data == {"words": "one 2 v1.35.4", "routes": "false"}
        assert lab.status("demo")["sync"]["revision"] == "1.2.3"
        assert lab.status("demo")["sourceType"] == "Helm"
        lab.store.create(lab.crd("example.org", "Widget", "widgets"))
        lab.refresh("demo", "hard")
        await lab.until(lambda: lab.store.get("v1", "ConfigMap", "called", "demo")["data"]["routes"] == "true")

    in_lab(test)


def test_values_of_text_parameters_and_another_source_are_merged(in_lab):
    async def test(lab):
        source = chart(
            lab, valueFiles=["$values/base/values.yaml"], parameters=[{"name": "b", "value": "x", "forceString": True}]
        )
        lab.write({"base/values.yaml": {"a": "from git", "b": "hidden"}})
        await lab.up()
        source["repoURL"] = lab.charts.url(CHART)
        reference = {"repoURL": lab.git.url("infra"), "targetRevision": "main", "ref": "values"}
        lab.application("demo", namespace="demo", source=None, sources=[source, reference])
        await lab.well("demo")
        assert lab.store.get("v1", "ConfigMap", "demo", "demo")["data"]["words"].startswith("from git x ")
        assert lab.status("demo")["sync"]["revisions"] == ["1.2.3", lab.git.head("infra")]

    in_lab(test)


def test_a_missing_chart_version_is_reported(in_lab):
    async def test(lab):
        source = chart(lab)
        await lab.up()
        source |= {"repoURL": lab.charts.url(CHART), "targetRevision": "9.9.9"}
        lab.application("demo", namespace="demo", source=source)
        message = await condition(lab, "demo")
        assert (
            "failed to generate manifest for source 1 of 1: rpc error: code = Unknown desc = `helm template demo`"
            in message
        )
        assert "9.9.9" in message

    in_lab(test)


def test_a_missing_path_branch_and_repository_have_distinct_messages(in_lab):
    async def test(lab):
        lab.write({"base/x.yaml": lab.config_map("x")})
        await lab.up()
        url = lab.git.url("infra")
        lab.application("path", "nowhere", namespace="x")
        lab.application("branch", namespace="x", source={"repoURL": url, "targetRevision": "mian", "path": PATH})
        lab.application(
            "repo", namespace="x", source={"repoURL": lab.git.url("none"), "targetRevision": "main", "path": PATH}
        )
        assert "nowhere: app path does not exist" in await condition(lab, "path")
        assert "unable to resolve 'mian' to a commit SHA" in await condition(lab, "branch")
        assert "not found" in await condition(lab, "repo")

    in_lab(test)


def test_a_repository_that_is_down_once_is_read_at_the_next_refresh(in_lab):
    async def test(lab):
        lab.write({"base/x.yaml": lab.config_map("x")})
        await lab.up()
        lab.faults.add("argocd.repository-down-once")
        lab.application("base", PATH, namespace="base")
        assert "connection refused" in await condition(lab, "base")
        await lab.well("base")

    in_lab(test)


def test_an_object_that_occurs_twice_is_a_warning(in_lab):
    async def test(lab):
        lab.write({"base/x.yaml": lab.config_map("x", a="1"), "base/y.yaml": lab.config_map("x", a="2")})
        await lab.up()
        lab.application("base", PATH, namespace="base")
        assert "appeared 2 times" in await condition(lab, "base", "RepeatedResourceWarning")

    in_lab(test)
