from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluobook.errors import ParamsError
from fluobook.failures import present
from fluobook.params import SecretRef, located, parse


def test_a_secret_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKEN", " hunter2\n")
    assert SecretRef(env="TOKEN").resolve(tmp_path) == "hunter2"


def test_a_secret_is_read_from_a_file_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    assert SecretRef(file="token").resolve(tmp_path) == "hunter2"


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert located("~/key", Path("/repo")) == tmp_path / "key"
    assert located("key", Path("/repo")) == Path("/repo/key")
    assert located("/key", Path("/repo")) == Path("/key")


def test_a_secret_is_one_key_of_a_sops_file(tmp_path: Path) -> None:
    opened: list[Path] = []

    def decrypt(path: Path) -> Any:
        opened.append(path)
        return {"proxmox": {"token": "hunter2"}}

    reference = SecretRef(sops="s.yaml", key="proxmox.token")
    assert reference.resolve(tmp_path, decrypt) == "hunter2"
    assert opened == [tmp_path / "s.yaml"]


def test_a_sops_file_may_be_the_secret_itself(tmp_path: Path) -> None:
    assert SecretRef(sops="s.txt").resolve(tmp_path, lambda _: "hunter2") == "hunter2"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (SecretRef(env="NOT_SET"), "export NOT_SET="),
        (SecretRef(file="nowhere"), "No such file"),
        (SecretRef(file="empty"), "it is empty"),
        (SecretRef(file="binary"), "binary:1 is not text"),
        (SecretRef(sops="s.yaml", key="a.c"), "no text in SOPS file s.yaml, key a.c"),
        (SecretRef(sops="s.yaml"), "no text in SOPS file s.yaml"),
        (SecretRef(sops="s.yaml", key="a.b.c"), "no text in"),
    ],
)
def test_a_secret_that_is_not_there_is_named(tmp_path: Path, reference: SecretRef, message: str) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ParamsError) as refused:
        reference.resolve(tmp_path, lambda _: {"a": {"b": "hunter2"}})
    assert message in present(refused.value).text()
    assert "hunter2" not in present(refused.value).text()


def test_without_sops_a_sops_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="cannot be read here"):
        SecretRef(sops="s.yaml").resolve(tmp_path)


def test_no_representation_contains_a_secret(monkeypatch: pytest.MonkeyPatch, document: dict[str, Any]) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    platform = parse(document).platform
    assert platform.proxmox[0].token_secret.resolve(Path()) == "hunter2"
    assert "hunter2" not in repr(platform) + str(platform) + platform.model_dump_json()


def test_a_reference_says_where_the_secret_is() -> None:
    places = [SecretRef(env="TOKEN"), SecretRef(file="t"), SecretRef(sops="s", key="k")]
    assert list(map(str, places)) == ["environment variable TOKEN", "file t", "SOPS file s, key k"]


@pytest.mark.parametrize("wrong", [{}, {"key": "k"}, {"env": "A", "file": "b"}, {"file": "f", "key": "k"}])
def test_a_reference_names_exactly_one_place(document: dict[str, Any], wrong: dict[str, str]) -> None:
    document["platform"]["proxmox"][0]["token_secret"] = wrong
    with pytest.raises(ParamsError):
        parse(document)
