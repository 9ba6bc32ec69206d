"""The schematic's id, offline and the same as the Image Factory's."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluobook.errors import ParamsError
from fluobook.machine.schematic import canonical, extensions, image_of, parse, schematic_id

TREE = Path(__file__).parents[2] / "talos" / "schematic.yaml"
EMPTY = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"
LONGHORN = "613e1592b2da41ae5e265e8789429f22e121aab91cb4deb6bc3c0b6262961245"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "customization: {}", "customization: {extraKernelArgs: [], systemExtensions: {}}", "overlay: {}"],
)
def test_all_spellings_of_nothing_have_the_factorys_id_of_nothing(text: str) -> None:
    assert schematic_id(parse(text)) == EMPTY


def test_the_id_that_talos_documents_for_longhorn_comes_out() -> None:
    text = (
        "customization: {systemExtensions: {officialExtensions: [siderolabs/iscsi-tools, siderolabs/util-linux-tools]}}"
    )
    assert schematic_id(parse(text)) == LONGHORN


def test_the_order_of_extensions_counts_the_order_of_fields_does_not() -> None:
    one = parse("customization: {systemExtensions: {officialExtensions: [a, b]}, extraKernelArgs: [x=1]}")
    two = parse("customization: {extraKernelArgs: [x=1], systemExtensions: {officialExtensions: [a, b]}}")
    other = parse("customization: {extraKernelArgs: [x=1], systemExtensions: {officialExtensions: [b, a]}}")
    assert schematic_id(one) == schematic_id(two) != schematic_id(other)


def test_the_canonical_text_is_indented_as_the_factory_indents() -> None:
    text = (
        "{overlay: {name: n, image: i}, customization: {meta: [{value: v, key: 10}], secureboot: {enrollKeys: force}}}"
    )
    assert canonical(parse(text)) == (
        "overlay:\n    image: i\n    name: n\n"
        "customization:\n    meta:\n        - key: 10\n          value: v\n    secureboot:\n        enrollKeys: force\n"
    )


def test_comments_and_spacing_do_not_count() -> None:
    assert schematic_id(parse(TREE.read_text())) == schematic_id(parse(canonical(parse(TREE.read_text()))))


def test_the_trees_schematic_has_what_longhorn_and_proxmox_need() -> None:
    wanted = {"siderolabs/iscsi-tools", "siderolabs/util-linux-tools", "siderolabs/qemu-guest-agent"}
    assert set(extensions(parse(TREE.read_text()))) == wanted
    assert extensions({}) == ()


def test_names_of_iso_and_installer_follow_from_the_id() -> None:
    image = image_of("customization: {}", "v1.13.9")
    assert image.schematic == EMPTY
    assert image.url == f"https://factory.talos.dev/image/{EMPTY}/v1.13.9/nocloud-amd64.iso"
    assert image.installer == f"factory.talos.dev/nocloud-installer/{EMPTY}:v1.13.9"
    assert image.filename == f"talos-v1.13.9-{EMPTY[:16]}-nocloud-amd64.iso"


def test_another_version_or_schematic_is_another_file() -> None:
    texts = ["customization: {}", "customization: {extraKernelArgs: [a]}"]
    names = {image_of(text, version).filename for text in texts for version in ("1.13.8", "1.13.9")}
    assert len(names) == 4


def test_a_mirror_takes_the_factorys_place() -> None:
    image = image_of("", "1.13.9", host="factory.example.net")
    assert image.url.startswith("https://factory.example.net/")
    assert image.installer.startswith("factory.example.net/")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("customisation: {}", "unknown field customisation"),
        (
            "customization: {systemExtensions: {officialExtension: []}}",
            "officialExtension",
        ),
        ("customization: []", "customization is not a map"),
        (
            "customization: {systemExtensions: {officialExtensions: siderolabs/iscsi-tools}}",
            "officialExtensions is not a list",
        ),
        ("customization: {extraKernelArgs: quiet}", "extraKernelArgs is not a list"),
        ("customization: {extraKernelArgs: [5]}", "extraKernelArgs is not a text: 5"),
        ("customization: {meta: [{key: text, value: a}]}", "meta.key is not a number"),
        ("customization: {}\n---\ncustomization: {}", "one YAML document"),
        ("[a]", "mappings"),
    ],
)
def test_what_the_factory_would_refuse_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ParamsError, match=problem):
        parse(text)
