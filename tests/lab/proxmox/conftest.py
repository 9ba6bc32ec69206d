"""A Proxmox VE endpoint of the lab, and a plain client."""

import socket

import pytest
from proxmoxer import ProxmoxAPI

from tests.conftest import SECRET


@pytest.fixture
def plain(proxmox, ca_file, monkeypatch):
    """A lab endpoint and a plain proxmoxer client; the name pve1.lab resolves to loopback."""

    def make(*faults, **options):
        rig = proxmox(*faults, **options)
        real = socket.getaddrinfo

        def resolve(host, *rest, **more):
            return real("127.0.0.1" if host == "pve1.lab" else host, *rest, **more)

        monkeypatch.setattr("socket.getaddrinfo", resolve)
        api = ProxmoxAPI(
            "pve1.lab",
            port=rig.lab.port,
            user="fluobook@pve",
            token_name="fluobook",
            token_value=SECRET,
            verify_ssl=str(ca_file),
        )
        return rig, api

    return make
