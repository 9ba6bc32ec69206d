import pytest

from fluobook.clients import age
from fluobook.errors import Rejected
from fluobook.failures import present


def test_a_new_key_is_read_again_from_its_file():
    key = age.generate()
    assert key.secret.startswith("AGE-SECRET-KEY-1")
    assert age.read(key.file()) == (key,)
    assert age.public_key(key.file()) == key.recipient


def test_a_file_may_contain_several_keys():
    keys = (age.generate(), age.generate())
    assert age.read("\n".join(key.file() for key in keys)) == keys


def test_a_damaged_key_is_refused_and_never_shown():
    secret = age.generate().secret
    other = "Q" if secret.endswith("X") else "X"
    with pytest.raises(Rejected, match=r"keys\.txt: key 1 is not an age key") as caught:
        age.read(secret[:-1] + other, "keys.txt")
    assert secret[20:40] not in present(caught.value).text()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_file_without_a_key_is_refused():
    with pytest.raises(Rejected, match="contains no age key"):
        age.read("# created: today\n")


def test_the_secret_half_is_not_in_the_repr():
    key = age.generate()
    assert key.secret not in repr(key)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("AGE-SECRET-KEY-PQ-1" + "QY" * 30, "a post-quantum key"),
        ("age-secret-key-pq-1" + "qy" * 30, "a post-quantum key"),
        ("AGE-PLUGIN-YUBIKEY-1QQPSYQ", "the key of an age plugin"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "an SSH or PGP key"),
    ],
)
def test_a_key_of_another_kind_is_refused_by_its_name(line: str, kind: str):
    with pytest.raises(Rejected, match=f"key 1 is {kind}") as caught:
        age.read(f"# public key: age1pq1x\n{line}\n", "keys.txt")
    assert "age-keygen" in caught.value.remedy
    assert line[20:] not in present(caught.value).text() or not line[20:].strip("-")
