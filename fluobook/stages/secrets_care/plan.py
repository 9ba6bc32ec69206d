"""What leads from the files to the wishes, .sops.yaml and the generators' lists. Pure."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from fluobook.errors import Refused
from fluobook.gitops.secrets import SUFFIX
from fluobook.stages.core.plan import Action, Plan
from fluobook.stages.secrets_care.wishes import DATA_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fluobook.params import Platform
    from fluobook.stages.secrets_care.observe import Generator, Observation, SecretFile
    from fluobook.stages.secrets_care.wishes import Wish

NAME = "secrets"


def plan(platform: Platform, seen: Observation) -> Plan:
    """One action for each file that is written, and one for each generator whose list changes.

    Raises:
        Refused: a file would be for the lab's key and the target is live, or would shut the operator out, or has no
            place; nothing is planned then.
    """
    wishes = {wish.file: wish for wish in seen.wishes}
    if seen.live:
        _are_safe(seen, wishes)
    actions = [action for wish in seen.wishes if not seen.find(wish.file) for action in [_create(seen, wish)]]
    for one in seen.files:
        actions += filter(None, [_change(seen, one, wishes.get(one.file))])
    actions += [action for one in seen.generators for action in _list(seen, one, actions)]
    kept = len(seen.files) + len(seen.generators) - sum(action.verb != "create" for action in actions)
    return Plan(NAME, tuple(actions), kept, platform.digest_data(), notes=tuple(_notes(seen, actions)))


def _create(seen: Observation, wish: Wish) -> Action:
    folder = str(PurePosixPath(wish.file).parent)
    places = sorted(one.folder for one in seen.generators if one.folder in seen.namespaces)
    if folder not in places:
        raise Refused(
            f"{wish.file}: no Application brings secrets from {folder}",
            remedy=f"put it in {' or '.join(places)}, or add an Application with a KSOPS generator there",
        )
    name = wish.name or PurePosixPath(wish.file).name.removesuffix(SUFFIX)
    keys = [key for key, word in wish.words.items() if word != "remove"]
    recipients = _recipients(seen, wish.file, seen.rules.get(wish.file))
    data = {
        "file": wish.file,
        "recipients": recipients,
        "set": keys,
        "secret": {"name": name, "namespace": seen.namespaces[folder], "type": wish.type or "Opaque"},
    }
    detail = f"{', '.join(keys) or 'no keys'} · for {', '.join(recipients)}"
    named = f"secret {seen.namespaces[folder]}/{name}"
    return Action(wish.file, "create", named, detail, f"{wish.file} is not there", system="sops", data=data)


def _change(seen: Observation, one: SecretFile, wish: Wish | None) -> Action | None:
    """The one action that brings a file to where it should be; it writes the file once, whatever the reasons."""
    put, removed, anew = _wished(one, wish, seen.renewed)
    reasons = [f"{', '.join(put)} to be set"] if put else []
    reasons += [f"{', '.join(removed)} to be taken out"] if removed else []
    reasons += ["a new data key is asked for"] if anew else []
    reasons += _why_encrypt(one)
    if not reasons:
        return None
    recipients = _recipients(seen, one.file, one.wanted)
    data = {"file": one.file, "recipients": recipients, "set": put, "remove": removed, "stamp": one.stamp}
    verb = "change" if put or removed else "re-key" if one.encrypted else "encrypt"
    return Action(
        one.file, verb, one.object, f"for {', '.join(recipients)}", "; ".join(reasons), system="sops", data=data
    )


def _wished(
    one: SecretFile, wish: Wish | None, renewed: frozenset[tuple[str, str]]
) -> tuple[list[str], list[str], bool]:
    """The keys to set and to take out, and whether the data key must be new."""
    if wish is None:
        return [], [], False
    due = {
        "ask": lambda key: key not in one.keys or key in one.differing,
        "random": lambda key: key not in one.keys,
        "renew": lambda key: key not in one.keys or (one.file, key) not in renewed,
    }
    put = [key for key, word in wish.words.items() if word in due and due[word](key)]
    removed = [key for key, word in wish.words.items() if word == "remove" and key in one.keys]
    return put, removed, wish.new_data_key and (one.file, DATA_KEY) not in renewed


def _why_encrypt(one: SecretFile) -> Iterator[str]:
    wanted = one.wanted or frozenset()
    if not one.encrypted:
        yield "it stands in clear"
    elif one.wanted is not None:
        if gone := sorted(one.recipients - wanted):
            yield f"{', '.join(gone)} is no recipient any more"
        if new := sorted(wanted - one.recipients):
            yield f"{', '.join(new)} is one now"


def _recipients(seen: Observation, file: str, wanted: frozenset[str] | None) -> list[str]:
    """Whom a file is to be encrypted for.

    Raises:
        Refused: nobody, or everybody, or not the operator.
    """
    if not wanted:
        raise Refused(f"no rule of .sops.yaml names recipients for {file}", remedy="add a rule for its folder")
    if seen.live and wanted & seen.lab:
        raise Refused(
            f".sops.yaml names the lab's recipient for {file}",
            cause="everybody has the lab's key: a live cluster's secrets would be open to whoever has this repository",
            remedy="put your own recipient into .sops.yaml in its place, then open this notebook again",
        )
    if not wanted & seen.own:
        raise Refused(
            f".sops.yaml names {', '.join(sorted(wanted))} for {file}, and your key is another",
            cause="you could not open the file any more, and Argo CD gets the key that you hold",
            remedy="add your own recipient to .sops.yaml, or name the right key in the params (secrets.age_key)",
        )
    return sorted(wanted)


def _are_safe(seen: Observation, wishes: Mapping[str, Wish]) -> None:
    """Everybody knows what was for the lab's key: before it goes live, each value is replaced, or said to be no secret.

    Raises:
        Refused: it says which values are left, or that .sops.yaml still names the lab's recipient.
    """
    left: dict[str, list[str]] = {}
    for one in seen.files:
        _recipients(seen, one.file, one.wanted)
        if one.recipients & seen.lab:
            _is_no_bundle(one)
            words = wishes[one.file].words if one.file in wishes else {}
            left[one.file] = [key for key in one.keys if words.get(key, "random") == "random"]
    if any(left.values()):
        known = "; ".join(f"{', '.join(keys)} in {file}" for file, keys in left.items() if keys)
        told = {file: dict.fromkeys(keys, "renew") for file, keys in left.items() if keys}
        raise Refused(
            f"what the lab's key opens is known to everybody: {known}",
            remedy=f'say of each whether to "renew", "ask", "keep" or "remove" it: secrets = {json.dumps(told)}',
        )


def _is_no_bundle(one: SecretFile) -> None:
    if one.is_bundle:
        raise Refused(
            f"{one.file} was encrypted for the lab's key: everybody can read the cluster's PKI",
            remedy="delete the file and build the cluster anew: its certificates cannot be made secret again",
        )


def _list(seen: Observation, one: Generator, actions: Iterable[Action]) -> Iterator[Action]:
    """The action that brings a generator's list in step with its folder, which holds what is there and what will be."""
    new = [
        PurePosixPath(a.id).name
        for a in actions
        if a.verb == "create" and str(PurePosixPath(a.id).parent) == one.folder
    ]
    present = {file.name for file in seen.files if file.folder == one.folder} | set(new)
    files = [name for name in dict.fromkeys(one.listed) if name in present]
    files += sorted(present - set(files))
    if files == list(one.listed):
        return
    reasons = [f"{name} is not listed" for name in sorted(present - set(one.listed))]
    reasons += [f"{name} is not there" for name in one.listed if name not in present]
    needs = tuple(f"{one.folder}/{name}" for name in new)
    yield Action(
        one.file,
        "list",
        f"generator {one.folder}",
        ", ".join(files),
        "; ".join(reasons) or "a file is listed twice",
        needs=needs,
        system="generator",
        data={"file": one.file, "files": files},
    )


def _notes(seen: Observation, actions: Iterable[Action]) -> Iterator[str]:
    kinds = {action.verb for action in actions}
    if any((one.recipients - (one.wanted or one.recipients)) and one.encrypted for one in seen.files):
        yield "who is no recipient any more still knows the values that they have read, and Git keeps: renew these too"
    if "encrypt" in kinds:
        yield "what stood in clear and was committed is known for good: renew its values too"
    if kinds:
        yield "Argo CD brings it once it is committed and pushed"
