"""Schematic ids of the lab's Image Factory."""

import pytest
from fluobook_lab.factory import id_of

EMPTY = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", EMPTY),
        ("{}", EMPTY),
        ("customization: {}", EMPTY),
        ('customization: {"extraKernelArgs": []}', EMPTY),
        (
            '{"customization": {"extraKernelArgs": ["noapic", "nolapic"], "systemExtensions": {}}}',
            "9cba8e32753f91a16c1837ab8abf356af021706ef284aef07380780177d9a06c",
        ),
        (
            '{"customization": {"meta": [{"key": 10, "value": "foo"}], "extraKernelArgs": []}}',
            "d308a2a5ee2277bed5fbaa104fcbc8d59122abfa737df987a95b4ca763459a7f",
        ),
        (
            '{"overlay": {"name": "rpi_generic", "image": "siderolabs/sbc-raspberrypi"}}',
            "ee21ef4a5ef808a9b7484cc0dda0f25075021691c8c09a276591eedb638ea1f9",
        ),
        (
            '{"customization":{"secureboot": {"includeWellKnownCertificates": true}}}',
            "fa8e05f142a851d3ee568eb0a8e5841eaf6b0ebc8df9a63df16ac5ed2c04f3e6",
        ),
        (
            "customization: {diskImage: {sectorSize: 4096}}",
            "92833e9ddd9bb9e11b2464fa5525429f01866306d52ebd882ee08d7918f6d1ea",
        ),
    ],
)
def test_ids_equal_those_in_the_tests_of_the_real_factory(text, expected):
    assert id_of(text) == expected


def test_the_order_of_extensions_is_part_of_the_schematic():
    first, second = (
        f"customization: {{systemExtensions: {{officialExtensions: [{names}]}}}}" for names in ("a, b", "b, a")
    )
    assert id_of(first) != id_of(second)
