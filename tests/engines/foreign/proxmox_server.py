"""Serves fakepve, a Proxmox VE of somebody else's making, in its own process and environment; tells its port."""

import asyncio
import sys

from fakepve import FakePve


async def main() -> None:
    certificate, key, token, secret = sys.argv[1:]
    server = FakePve(host="127.0.0.1", port=0)
    server.time_scale = 0.02
    server.apitokens[token] = secret
    await server.start(certificate, key)
    print(server.port, flush=True)  # noqa: T201 (how it tells)
    await asyncio.Event().wait()


asyncio.run(main())
