"""A folder with real charts and git repositories: what is found in it, what is refused, what stands in for the rest."""

import gzip
import io
import shutil
import subprocess
import tarfile

import pytest
import yaml
from fluobook_lab.charts import GENERIC, Pin, package
from fluobook_lab.charts import sources as chart_sources
from fluobook_lab.charts.sources import Folder, described, read_archive, resolve

from fluobook.clients import tools
from fluobook.errors import BadFile, UsageError

REPO = "https://charts.example.org/stable"
GIT_REPO = "https://github.com/rabbitmq/cluster-operator"
CHART = {"apiVersion": "v2", "name": "demo", "version": "1.2.3"}


def archive(metadata=CHART, members=(), *, top="demo"):
    """A chart archive; members are pairs of a name and a content, or of a name and a link's type as text."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in ((f"{top}/Chart.yaml", yaml.safe_dump(metadata).encode()), *members):
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.linkname = content.encode(), "/etc/passwd"
                tar.addfile(entry)
    return gzip.compress(buffer.getvalue(), mtime=0)


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = [tools.find("git").path, *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=200).stdout.strip()


def repository(folder, *tags, bare=False, content="x"):
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "file").write_text(content)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    for tag in tags:
        git(folder, "tag", "-am", tag, tag)
    if bare:
        git(folder.parent, "clone", "-q", "--bare", str(folder), f"{folder}.git")
        shutil.rmtree(folder)
        return folder.with_name(f"{folder.name}.git")
    return folder


@pytest.fixture
def real(tmp_path):
    """Write files into a folder and read it."""
    path = tmp_path / "real"
    path.mkdir()

    def read(**files):
        for name, content in files.items():
            file = path / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".tgz").write_bytes(content)
        return Folder(path, git=tools.find("git").path)

    read.path = path
    return read


@pytest.mark.parametrize("written", ["1.2.3", "v1.2.3"])
@pytest.mark.parametrize("pinned", ["1.2.3", "v1.2.3"])
def test_a_chart_is_known_by_its_chart_yaml_and_not_by_its_file_name(real, written, pinned):
    folder = real(any__deep__nonsense=archive({**CHART, "version": written}))
    chart = folder.package(Pin(REPO, "demo", pinned))
    assert (chart.name, chart.version, chart.metadata["version"]) == ("demo", pinned, pinned)
    assert folder.chart(Pin(REPO, "other", pinned)) is None


def test_another_version_is_named_where_the_pinned_one_is_lacking(real):
    folder = real(a=archive(), b=archive({**CHART, "version": "1.2.4"}))
    assert folder.why_not(Pin(REPO, "demo", "2.0.0")) == f"{real.path} has version 1.2.3, 1.2.4 of it"
    assert folder.why_not(Pin(REPO, "other", "2.0.0")) == f"{real.path} does not have it"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a gzip"),
        (b"<html>login</html>", "is not a gzip"),
        (archive()[:-30], "is truncated"),
        (gzip.compress(gzip.decompress(archive(members=[("demo/a", b"x" * 4000)]))[:2048], mtime=0), "is truncated"),
        (gzip.compress(b"no tar " * 200, mtime=0), "is not a gzip"),
        (archive({**CHART, "name": ""}), "no valid name"),
        (archive({**CHART, "version": 1.2}), "no valid version: 1.2"),
        (archive({**CHART, "name": "../demo"}), "no valid name"),
        (archive(["no", "mapping"]), "no valid name"),
        (archive(members=[("demo/../../outside", b"x")]), "leads outside"),
        (archive(members=[("/etc/cron.d/x", b"x")]), "leads outside"),
        (archive(members=[("demo\\..\\x", b"x")]), "leads outside"),
        (archive(members=[("demo/templates/x", tarfile.SYMTYPE.decode())]), "is a link"),
        (archive(members=[("demo/templates/x", tarfile.LNKTYPE.decode())]), "is a link"),
        (archive(members=[("demo/templates/x", tarfile.CHRTYPE.decode())]), "is a link"),
        (archive(members=[("demo/Chart.yaml", b"name: other")]), "twice"),
        (archive(members=[("demo/large", b"x" * ((5 << 20) + 1))]), "more than 5 MiB"),
        (gzip.compress(b"\0" * ((100 << 20) + 512), 1, mtime=0), "unpacks to more than 100 MiB"),
        (archive({**CHART, "dependencies": [{"name": "grafana", "version": "1"}]}), "depends on the chart grafana"),
    ],
)
def test_an_archive_that_is_no_sound_chart_is_refused_with_its_name(tmp_path, content, problem):
    file = tmp_path / "x.tgz"
    file.write_bytes(content)
    with pytest.raises(BadFile, match=problem) as caught:
        read_archive(file)
    assert str(file) in caught.value.message
    assert caught.value.remedy


def test_an_archive_with_its_dependencies_is_a_chart(tmp_path):
    wanted = {**CHART, "dependencies": [{"name": "grafana", "version": "1"}, {"name": "crds", "version": "1"}]}
    members = [("demo/charts/grafana-1.0.0.tgz", b"x"), ("demo/charts/crds/Chart.yaml", b"name: crds")]
    (tmp_path / "x.tgz").write_bytes(archive(wanted, members))
    assert read_archive(tmp_path / "x.tgz").package.name == "demo"


def test_what_cannot_be_read_as_a_file_is_refused(real, monkeypatch):
    (real.path / "nowhere.tgz").symlink_to("missing")
    with pytest.raises(BadFile, match=r"nowhere\.tgz is not a regular file"):
        real()
    (real.path / "nowhere.tgz").unlink()
    monkeypatch.setattr(chart_sources, "LARGEST", 100)
    with pytest.raises(BadFile, match=r"x\.tgz is larger than"):
        real(x=archive())
    with pytest.raises(UsageError, match="is not a folder"):
        Folder(real.path / "x.tgz", git=tools.find("git").path)


def test_links_to_folders_are_followed_once(real):
    elsewhere = real.path.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.tgz").write_bytes(archive())
    (real.path / "link").symlink_to(elsewhere)
    (elsewhere / "circle").symlink_to(real.path)
    assert real().chart(Pin(REPO, "demo", "1.2.3")).file == real.path / "link" / "x.tgz"


def test_two_archives_of_one_chart_are_told_apart_by_content_or_by_the_path_of_their_repository(real):
    other = archive(members=[("demo/values.yaml", b"a: 1")])
    real(a=archive(), copy=gzip.compress(gzip.decompress(archive()), 1))
    pin = Pin(REPO, "demo", "1.2.3")
    assert real().chart(pin)
    with pytest.raises(BadFile, match=r"a\.tgz and .*z\.tgz are both demo 1\.2\.3, with different contents"):
        real(z=other).chart(pin)
    (real.path / "charts.example.org" / "stable").mkdir(parents=True)
    (real.path / "z.tgz").rename(real.path / "charts.example.org" / "stable" / "z.tgz")
    assert real().chart(pin).file.name == "z.tgz"
    with pytest.raises(BadFile, match="different contents"):
        real().chart(Pin("https://elsewhere.example.org", "demo", "1.2.3"))


@pytest.mark.parametrize(
    "path", ["cluster-operator", "git/rabbitmq/cluster-operator", "GitHub.com/rabbitmq/cluster-operator"]
)
@pytest.mark.parametrize("bare", [False, True])
def test_a_git_repository_is_known_by_the_end_of_its_path(real, path, bare):
    found = repository(real.path / path, "v1.0.0", bare=bare)
    commit = git(found, "rev-parse", "v1.0.0^{commit}")
    assert real().repository(Pin(GIT_REPO, "", "v1.0.0")) == (found, commit)
    assert real().repository(Pin(f"{GIT_REPO}.git", "", commit)) == (found, commit)
    assert real().repository(Pin(GIT_REPO, "", "v2.0.0")) is None
    assert real().why_not(Pin(GIT_REPO, "", "v2.0.0")) == f"{found} has no tag, branch or commit v2.0.0"
    assert "no git repository whose path ends with other" in real().why_not(Pin("https://github.com/a/other", "", "v1"))


def test_the_longest_common_path_wins_and_equal_ones_must_agree(real):
    repository(real.path / "cluster-operator", "v1.0.0", content="other")
    exact = repository(real.path / "rabbitmq" / "cluster-operator", "v1.0.0")
    pin = Pin(GIT_REPO, "", "v1.0.0")
    assert real().repository(pin)[0] == exact
    repository(real.path / "second" / "rabbitmq" / "cluster-operator", "v1.0.0", content="another")
    with pytest.raises(BadFile, match=r"both fit .*cluster-operator, and v1\.0\.0 is another commit in each"):
        real().repository(pin)


def test_a_repository_without_all_files_of_the_tag_is_refused(real):
    found = repository(real.path / "cluster-operator", "v1.0.0")
    blob = git(found, "rev-parse", "HEAD:file")
    (found / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(BadFile, match=r"has v1\.0\.0, but not all of its files"):
        real().repository(Pin(GIT_REPO, "", "v1.0.0"))


def test_archives_inside_a_repository_are_not_read_except_in_the_top_one(real):
    clone = repository(real.path / "clone")
    (clone / "broken.tgz").write_bytes(b"broken")
    assert real().chart(Pin(REPO, "demo", "1.2.3")) is None
    git(real.path, "init", "-q")
    assert real(x=archive()).chart(Pin(REPO, "demo", "1.2.3"))


def application(folder, **source):
    folder.mkdir(parents=True, exist_ok=True)
    document = {"kind": "Application", "metadata": {"name": "a"}, "spec": {"source": source}}
    (folder / f"{len(list(folder.iterdir()))}.yaml").write_text(yaml.safe_dump(document))


def test_each_source_of_the_tree_says_what_serves_it_and_why(real, tmp_path):
    tree = tmp_path / "root" / "cluster-gitops"
    application(tree, repoURL=REPO, chart="demo", targetRevision="v1.2.3")
    application(tree, repoURL=REPO, chart="other", targetRevision="2.0.0")
    application(tree, repoURL="git@git.example.org:own/tree.git", path="x", targetRevision="main")
    application(tree, repoURL=GIT_REPO, path="x", targetRevision="v1.0.0")
    application(tree, repoURL="https://github.com/no/standin", path="x", targetRevision="v1.0.0")
    repository(real.path / "cluster-operator", "v1.0.0")
    found = resolve(tmp_path / "root", "https://git.example.org/own/tree", real(x=archive()))
    assert {(source.name, source.used) for source in found} == {
        ("demo v1.2.3", "real"),
        ("other 2.0.0", "stand-in"),
        ("rabbitmq/cluster-operator v1.0.0", "real"),
        ("no/standin v1.0.0", "remote"),
    }
    text = described(str(real.path), found)
    assert text.startswith(f"charts: 2 of 4 sources are real, from {real.path}\n")
    assert f"other 2.0.0: the lab's stand-in is used, because {real.path} does not have it" in text
    assert "no/standin v1.0.0: its own server is asked, because" in text
    nothing = resolve(tmp_path / "root", "https://git.example.org/own/tree", None)
    assert [source.used for source in nothing] == ["stand-in", "stand-in", "remote", "stand-in"]
    assert described("stand-ins", nothing) == "charts: the lab's stand-ins"


def test_a_packaged_standin_is_a_chart_as_well(tmp_path):
    (tmp_path / "x.tgz").write_bytes(package(GENERIC, "demo", "1.2.3").archive)
    assert read_archive(tmp_path / "x.tgz").package.version == "1.2.3"
