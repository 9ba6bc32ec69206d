import pytest
from fluobook_lab.clock import Clock
from fluobook_lab.factory import FactoryLab
from fluobook_lab.faults import Faults

from fluobook.clients.factory import FactoryClient
from fluobook.errors import NotFound, OutsideError, Rejected, Unreachable

pytestmark = pytest.mark.lab

SCHEMATIC = """
customization:
  systemExtensions:
    officialExtensions: [siderolabs/iscsi-tools, siderolabs/util-linux-tools]
"""
ID = "613e1592b2da41ae5e265e8789429f22e121aab91cb4deb6bc3c0b6262961245"


@pytest.fixture
def factory(background, ca_file, tls_of):
    made = []

    def make(*faults, **changes) -> tuple[FactoryLab, FactoryClient]:
        async def start() -> FactoryLab:
            lab = FactoryLab(clock=Clock(20), faults=Faults(faults))
            await lab.start(0, tls_of(dns=("factory.talos.dev",))[0])
            return lab

        lab = background.run(start())
        given = {"address": ("127.0.0.1", lab.port), "ca_file": str(ca_file)} | changes
        made.append((lab, FactoryClient(**given)))
        return made[-1]

    yield make
    for lab, client in made:
        client.close()
        background.run(lab.stop())


def test_a_schematic_gets_the_id_that_the_real_factory_gives(factory):
    lab, client = factory()
    assert client.schematic(SCHEMATIC) == ID
    assert client.schematic(SCHEMATIC) == ID
    url = f"https://factory.talos.dev/image/{ID}/v1.13.9/nocloud-amd64.iso"
    assert lab.image(url) == 117_440_512


def test_an_image_exists_only_for_a_known_schematic_version_and_file(factory):
    lab, _ = factory()
    empty = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"
    base = "https://factory.talos.dev/image"
    assert lab.image(f"{base}/{empty}/v1.13.9/nocloud-amd64.iso")
    assert lab.image(f"{base}/{empty}/1.13.9/nocloud-amd64.iso")
    assert lab.image(f"{base}/{ID}/v1.13.9/nocloud-amd64.iso") is None
    assert lab.image(f"{base}/{empty}/v9.9.9/nocloud-amd64.iso") is None
    assert lab.image(f"{base}/{empty}/v1.13.9/metal-arm64.iso") is None
    assert lab.image(f"https://example.org/image/{empty}/v1.13.9/nocloud-amd64.iso") is None


def test_versions_and_extensions_are_listed(factory):
    _, client = factory()
    assert "v1.13.9" in client.versions()
    assert "siderolabs/iscsi-tools" in client.extensions("1.13.9")
    assert client.extensions("v1.13.9") == client.extensions("1.13.9")
    with pytest.raises(NotFound):
        client.extensions("9.9.9")


def test_an_extension_can_be_missing(factory):
    _, client = factory("factory.extension-missing")
    assert "siderolabs/iscsi-tools" not in client.extensions("1.13.9")


@pytest.mark.parametrize("text", ["customisation: {}", "[1, 2]", "customization: {extraKernelArgs: no}", "a: [", "x"])
def test_what_is_not_a_schematic_is_rejected(factory, text):
    _, client = factory()
    with pytest.raises(Rejected, match="yaml"):
        client.schematic(text)


def test_a_transient_error_of_the_factory_is_repeated(factory):
    lab, client = factory("factory.503-once")
    client.versions()
    assert [request.status for request in lab.requests] == [503, 200]


def test_a_lasting_error_of_the_factory_is_reported_as_its_own(factory, monkeypatch):
    monkeypatch.setattr("fluobook.clients.https.RETRY_AFTER", (0.0, 0.0))
    _, client = factory(*["factory.503-once"] * 3)
    with pytest.raises(OutsideError, match="upstream connect error"):
        client.versions()
    client.versions()


def test_a_factory_that_does_not_answer_is_unreachable(factory, background):
    lab, client = factory()
    background.run(lab.stop())
    with pytest.raises(Unreachable, match=r"factory\.talos\.dev:443 \(at 127\.0\.0\.1"):
        client.versions()


def test_a_factory_with_an_unknown_authority_is_not_trusted(factory):
    lab, client = factory(ca_file=None)
    with pytest.raises(Unreachable, match="not trusted"):
        client.versions()
    assert lab.requests == []


def test_a_ca_file_that_is_not_there_is_named(factory, tmp_path):
    with pytest.raises(Unreachable, match=r"missing\.pem"):
        factory(ca_file=str(tmp_path / "missing.pem"))
