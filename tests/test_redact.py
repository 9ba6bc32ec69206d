"""No secret that was loaded gets through, in whatever spelling."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluobook.machine.secrets import new_secrets
from fluobook.redact import MASK, SHORTEST, Redactor

SECRET = 'pa"ss/wörd+%20\n-second line-'
SPELLINGS = {
    "raw": lambda text: text,
    "in a sentence": lambda text: f"the token is {text}, they say",
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 of something longer, 1 byte before": lambda text: base64.b64encode(f"a{text}behind".encode()).decode(),
    "base64 of something longer, 2 bytes before": lambda text: base64.b64encode(f"ab{text}behind!".encode()).decode(),
    "base64 of something longer, 3 bytes before": lambda text: base64.b64encode(f"abc{text}b".encode()).decode(),
    "URL": lambda text: quote(text, safe=""),
    "JSON": json.dumps,
    "JSON, not ASCII": lambda text: json.dumps(text, ensure_ascii=False),
}


@pytest.fixture
def redactor():
    redactor = Redactor()
    redactor.add(SECRET)
    return redactor


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_secret_is_masked_in_every_spelling(redactor, spelling):
    shown = spelling(SECRET)
    masked = redactor.text(shown)
    assert MASK in masked
    assert redactor.leaks(shown)
    assert not redactor.leaks(masked)


@given(before=st.binary(max_size=7), secret=st.text(min_size=12, max_size=60), behind=st.binary(max_size=7))
def test_base64_of_anything_around_a_secret_does_not_give_it_away(before, secret, behind):
    redactor = Redactor()
    redactor.add(secret)
    shown = base64.b64encode(before + secret.strip().encode() + behind).decode()
    if len(secret.strip()) > SHORTEST:
        assert MASK in redactor.text(shown)


def test_each_line_of_a_key_is_a_secret_and_its_frame_is_not(redactor):
    key = new_secrets().talos.key
    redactor.add(key)
    first, *lines, last = key.strip().splitlines()
    indented = "\n".join(f"      {line}" for line in lines)
    assert not set(lines) & set(redactor.text(indented).split())
    assert redactor.text(f"{first} {last}") == f"{first} {last}"


def test_every_value_of_a_bundle_is_masked(redactor):
    bundle = new_secrets()
    redactor.add(*bundle.values())
    shown = json.dumps(bundle.as_mapping())
    assert redactor.leaks(shown)
    masked = redactor.text(shown)
    assert bundle.trustd_token not in masked
    assert bundle.bootstrap_token not in masked
    assert not redactor.leaks(masked)


def test_the_longest_form_goes_first_so_that_no_rest_stays(redactor):
    redactor.add("secret-one", "secret-one-and-more")
    assert redactor.text("secret-one-and-more") == MASK


def test_plain_data_is_masked_keys_included(redactor):
    masked = redactor.data({SECRET: [SECRET, {"a": (SECRET, 1, None, True)}]})
    assert masked == {MASK: [MASK, {"a": [MASK, 1, None, True]}]}


def test_short_values_are_not_taken_for_secrets(redactor):
    redactor.add("", "yes", "x" * (SHORTEST - 1))
    assert redactor.text("yes, xxxxx") == "yes, xxxxx"


def test_it_does_not_show_what_it_knows(redactor):
    assert repr(redactor) == "Redactor(…)"
    assert SECRET not in str(vars(Redactor))


NAMES = ("fluodata", "gateway-api", "mqtt-bridge.sops.yaml", "username")


@pytest.mark.parametrize(
    ("value", "text", "masked"),
    [
        ("fluodata", "create secret fluodata/mail", "create secret fluodata/mail"),
        ("username", '{"username": "x"}', '{"username": "x"}'),
        ("gateway", "cluster-gitops/infrastructure/gateway-api/x", "cluster-gitops/infrastructure/gateway-api/x"),
        ("gateway", "user gateway of gateway-api-7d9f", f"user {MASK} of gateway-api-7d9f"),
        ("bridge", "mqtt-bridge.sops.yaml, not mybridge", f"mqtt-bridge.sops.yaml, not my{MASK}"),
        ("gateway-api-s3cret", "gateway-api-s3cret", MASK),
        ("s3cret/gateway-api", "s3cret/gateway-api in gateway-api", f"{MASK} in gateway-api"),
        ("gateway-api:s3cret", "gateway-api:s3cret", MASK),
    ],
)
def test_a_name_is_never_masked_and_a_secret_that_contains_one_is(value, text, masked):
    redactor = Redactor()
    redactor.keep(*NAMES)
    redactor.add(value)
    assert redactor.text(text) == masked
    assert redactor.leaks(text) == (text != masked)


def test_names_that_are_learnt_later_stay_readable_too():
    redactor = Redactor()
    redactor.add("gateway")
    redactor.keep("gateway-api")
    assert redactor.data({"gateway-api": "gateway"}) == {"gateway-api": MASK}
