from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fluobook.environment import home
from fluobook.errors import BadFile, ParamsError
from fluobook.failures import present
from fluobook.params import load, parse, pins, repository_root
from fluobook.params.load import recorded

ROOT = repository_root(Path(__file__))
VALID = Path(__file__).parent / "valid" / "smallest.yaml"


def test_the_repository_is_found_from_any_folder_inside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    assert repository_root() == ROOT
    assert load("phase1").phase == "phase1"


def test_another_checkout_is_found_before_the_packages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "versions.yaml").write_text((ROOT / "params" / "versions.yaml").read_text())
    (tmp_path / "params" / "berlin.yaml").write_text(VALID.read_text())
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    assert repository_root() == tmp_path
    assert load("berlin").platform.cluster.name == "fluodata"


def test_a_repository_is_that_of_the_folder_even_if_its_versions_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    os.mkfifo(tmp_path / "params" / "versions.yaml")
    assert repository_root(tmp_path / "params") == tmp_path
    with pytest.raises(ParamsError, match=r"versions\.yaml: it is not a regular file"):
        pins(tmp_path)


def test_a_phase_may_be_a_path(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(VALID.read_text())
    assert load(str(path)).platform == load(path).platform


def test_an_unknown_phase_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ParamsError) as refused:
        load("phase11")
    assert "did you mean 'phase1'?" in present(refused.value).text()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"cannot read .*/nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["", "- phase\n", "phase1\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(ParamsError, match="a mapping with the keys phase and platform"):
        load(tmp_path / "odd.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParamsError, match="cannot read"):
        load(tmp_path / "odd.yaml")


def test_two_documents_in_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("phase: phase1\n---\nphase: phase2\n")
    with pytest.raises(ParamsError, match="one problem"):
        load(tmp_path / "odd.yaml")


def test_a_file_named_after_another_phase_is_refused(tmp_path: Path) -> None:
    (tmp_path / "phase2.yaml").write_text(VALID.read_text())
    with pytest.raises(ParamsError) as refused:
        load(tmp_path / "phase2.yaml")
    assert "phase = 'phase1': contradicts the name of its file, phase2.yaml" in refused.value.problems[0]


def test_all_problems_are_reported_at_once(document: dict[str, Any]) -> None:
    document["platform"]["network"]["gateway"] = "10.10.0.999"
    document["platform"]["gitops"]["domain"] = "nowhere"
    with pytest.raises(ParamsError, match="2 problems") as refused:
        parse(document)
    assert len(refused.value.problems) == 2


@pytest.mark.parametrize("platform", [None, [], "text", 5])
def test_a_platform_that_is_no_mapping_is_refused(platform: Any) -> None:
    with pytest.raises(ParamsError) as refused:
        parse({"phase": "phase1", "platform": platform})
    assert refused.value.problems[0].startswith("platform = ")
    assert "must be a mapping" in refused.value.problems[0]


def test_a_number_in_place_of_a_secret_is_not_repeated(document: dict[str, Any]) -> None:
    document["platform"]["proxmox"][0]["token_secret"] = 918273645
    with pytest.raises(ParamsError) as refused:
        parse(document)
    assert "platform.proxmox.laptop.token_secret: must be a mapping" in refused.value.problems[0]
    assert "918273645" not in present(refused.value).text()


def test_the_value_of_a_key_that_is_there_twice_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("token: hunter2\ntoken: hunter2\n")
    with pytest.raises(ParamsError, match="one problem") as refused:
        load(tmp_path / "odd.yaml")
    assert refused.value.problems == ("line 2: it has `token` twice",)


def test_versions_left_out_are_the_pins() -> None:
    assert load("phase1").platform.versions.model_dump(exclude_none=True) == pins(ROOT)


def test_parameters_cannot_be_changed() -> None:
    platform = load("phase1").platform
    with pytest.raises(ValueError, match="frozen"):
        platform.nodes[0].address = "10.10.0.99"


def test_the_operators_state_is_where_fluobook_home_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLUOBOOK_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("FLUOBOOK_HOME")
    assert home() == Path.home() / ".local" / "state" / "fluobook"


@pytest.mark.parametrize(
    ("content", "problem", "remedy"),
    [
        ("a: 1\nb: é".encode("latin-1"), "line 2: it is not text", "write it in UTF-8"),
        ("a: 1\n".encode("utf-16"), "line 1: it is not text", "write it in UTF-8"),
        (b"a: 1\nb: \0", "line 2: it is not text", "write it in UTF-8"),
        (b"#" * 300_000, "it is larger than 256 KiB", "is it the right file"),
    ],
)
def test_a_file_that_cannot_be_read_gives_line_and_remedy(
    tmp_path: Path, content: bytes, problem: str, remedy: str
) -> None:
    (tmp_path / "odd.yaml").write_bytes(content)
    with pytest.raises(ParamsError) as refused:
        load(tmp_path / "odd.yaml")
    assert problem in refused.value.message
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("nodes=3", "must be a list"),
        ("network=null", "must be a mapping"),
        ("network.mtu.x=3", "must be a whole number"),
        ("cluster.name=", "must be text"),
        ("network.mtu=[", "line 1"),
        ("network..mtu=3", "an empty key in the path"),
        ("nodes.talos-worker-1.name=x", "a name cannot be set"),
        ("versions.contract=1.13", "put it in quotes as it was meant"),
    ],
)
def test_a_wrong_set_is_blamed_and_not_the_file(override: str, words: str) -> None:
    with pytest.raises(ParamsError) as refused:
        load("phase1", [override])
    assert len(refused.value.problems) == 1
    assert words in refused.value.problems[0]
    assert "--set" in refused.value.message
    assert "correct --set" in refused.value.remedy or "--set" in refused.value.remedy


def test_a_key_that_is_no_text_is_refused_at_its_mapping(document: dict[str, Any]) -> None:
    document["platform"][None] = 1
    with pytest.raises(ParamsError) as refused:
        parse(document)
    assert refused.value.problems == ("platform: has the key null; a key must be text",)


def test_two_nodes_of_one_name_are_one_problem(document: dict[str, Any]) -> None:
    document["platform"]["nodes"].append(document["platform"]["nodes"][-1])
    with pytest.raises(ParamsError) as refused:
        parse(document)
    assert len(refused.value.problems) == 1


@pytest.mark.parametrize("content", ["[]", "null", '"phase1"', "{torn"])
def test_a_damaged_record_of_the_params_of_a_run_is_refused_and_the_phases_file_is_not_used(
    tmp_path: Path, content: str
) -> None:
    assert recorded(tmp_path, "phase1", root=ROOT) is None
    (tmp_path / "params.json").write_text(content)
    with pytest.raises(BadFile, match=r"params\.json.* is not"):
        recorded(tmp_path, "phase1", root=ROOT)
