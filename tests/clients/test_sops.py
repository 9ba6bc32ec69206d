import pytest
import yaml

from fluobook.clients import age, sops
from fluobook.errors import AccessDenied, NotFound, Rejected

KEY = age.generate()
SECRET = "apiVersion: v1\nkind: Secret\nmetadata:\n    name: db\nstringData:\n    password: hunter2-and-more\n"


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repo")
    return sops.encrypt(
        SECRET, path=folder / "db.yaml", recipients=[KEY.recipient], encrypted_regex="^(data|stringData)$"
    )


def test_an_encrypted_text_decrypts_with_the_key(encrypted):
    assert "hunter2" not in encrypted
    assert yaml.safe_load(encrypted)["metadata"] == {"name": "db"}
    assert sops.recipients(encrypted) == (KEY.recipient,)
    assert sops.is_encrypted(encrypted)
    assert sops.read(encrypted, KEY.file()) == yaml.safe_load(SECRET)


def test_the_creation_rules_decide_and_nothing_is_written(tmp_path):
    rule = {"path_regex": r"secrets/.*\.sops\.yaml$", "age": KEY.recipient}
    config = tmp_path / ".sops.yaml"
    config.write_text(yaml.safe_dump({"creation_rules": [rule]}))
    text = sops.encrypt("a: {b: word}\n", path=tmp_path / "secrets" / "x.sops.yaml", config=config)
    assert "word" not in text
    assert sops.read(text, KEY.secret) == {"a": {"b": "word"}}
    with pytest.raises(NotFound, match=r"no creation rule of .* matches other\.yaml"):
        sops.encrypt("a: b\n", path=tmp_path / "other.yaml", config=config)
    assert [file.name for file in tmp_path.iterdir()] == [".sops.yaml"]


def test_another_key_is_refused_with_the_recipient_named(encrypted, tmp_path):
    path = tmp_path / "db.yaml"
    path.write_text(encrypted)
    with pytest.raises(AccessDenied) as caught:
        sops.decrypt(path, age.generate().file())
    assert KEY.recipient in caught.value.cause
    assert str(path) in caught.value.message


def test_a_key_in_the_operators_home_does_not_help(encrypted, tmp_path, monkeypatch):
    keys = tmp_path / "sops" / "age" / "keys.txt"
    keys.parent.mkdir(parents=True)
    keys.write_text(KEY.file())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(keys))
    with pytest.raises(AccessDenied):
        sops.decrypt(encrypted, age.generate().secret)


def test_a_file_edited_by_hand_is_refused(encrypted):
    with pytest.raises(Rejected, match="MAC does not match"):
        sops.decrypt(encrypted.replace("name: db", "name: evil"), KEY.file())


def test_a_flipped_byte_is_refused(encrypted):
    data = encrypted.index("GCM,data:") + 9
    flipped = encrypted[:data] + ("A" if encrypted[data] != "A" else "B") + encrypted[data + 1 :]
    with pytest.raises(Rejected, match="damaged"):
        sops.decrypt(flipped, KEY.file())


@pytest.mark.parametrize("torn", ["!!!!", "", "-----END AGE ENCRYPTED FILE-----"])
def test_a_damaged_age_block_is_not_taken_for_that_of_another_key(encrypted, torn):
    lines = encrypted.splitlines()
    at = next(number for number, line in enumerate(lines) if "BEGIN AGE" in line) + 2
    lines[at] = " " * 12 + torn
    with pytest.raises(Rejected, match="its age block cannot be decrypted"):
        sops.decrypt("\n".join(lines), KEY.file())


def test_a_plaintext_file_is_reported(tmp_path):
    with pytest.raises(Rejected, match="is not encrypted"):
        sops.decrypt(SECRET, KEY.file())
    assert not sops.is_encrypted(SECRET)
    assert sops.recipients(SECRET) == ()
    with pytest.raises(NotFound):
        sops.decrypt(tmp_path / "missing.yaml", KEY.file())


SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ({"age": "age1a,age1b"}, {"age1a", "age1b"}),
        ({"age": "age1a,\n  age1b\n"}, {"age1a", "age1b"}),
        ({"age": ["age1a", "age1pq1b"]}, {"age1a", "age1pq1b"}),
        ({"age": f"age1a,{SSH} jo@example.org"}, {"age1a", SSH}),
        ({"age": [{"recipient": f"{SSH} jo@example.org", "enc": "x"}]}, {SSH}),
        ({"age": "age1a", "pgp": "FBC7B9E2A4F9289AC0C1D4843D16CEE4A27381B4"}, {"age1a", "pgp"}),
        ({"kms": [{"arn": "arn:aws:kms:x"}], "age": None}, {"kms"}),
        (
            {"age": "age1a", "gcp_kms": "projects/x", "hc_vault_transit_uri": "https://x"},
            {"age1a", "gcp_kms", "hc_vault_transit_uri"},
        ),
        ({"key_groups": [{"age": ["age1a"]}, {"age": ["age1b"]}]}, {"2 of 2 key groups", "age1a", "age1b"}),
        ({"key_groups": [{"age": ["age1a"]}, {"pgp": ["F"]}], "shamir_threshold": 1}, {"age1a", "pgp"}),
        ({"key_groups": [{"age": ["age1a", "age1b"]}]}, {"age1a", "age1b"}),
        ({"key_groups": ["x", {"age": ["age1a"]}], "shamir_threshold": "x"}, {"age1a"}),
        ({}, set()),
    ],
)
def test_everybody_who_can_decrypt_is_named(rule: dict, named: set):
    assert set(sops.recipients_in(rule)) == named


@pytest.mark.parametrize("name", ["x.env", "x.ini", "x.json", "x.yaml", "x.txt"])
def test_the_metadata_of_every_format_is_read(name: str, tmp_path):
    plain = {"x.env": "WORD=abc\n", "x.ini": "[a]\nword = abc\n", "x.json": '{"word": "abc"}', "x.yaml": "word: abc\n"}
    key = age.generate()
    text = sops.encrypt(plain.get(name, "abc\n"), path=tmp_path / name, recipients=[key.recipient])
    assert sops.recipients(text) == (key.recipient,)
    assert sops.is_encrypted(text)
    assert "abc" in sops.decrypt(text, key.secret)
