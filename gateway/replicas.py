"""How many replicas a service has, as far as DNS tells."""

from __future__ import annotations

import asyncio
import socket


async def count_replicas(target: str) -> int:
    """The number of addresses behind a gRPC target; 1 at least, and where they cannot be told.

    target: `dns:///host:port`, `host:port`, or `ipv4:` and `ipv6:` with addresses apart by commas.
    """
    scheme, _, rest = target.partition(":")
    if scheme in ("ipv4", "ipv6"):
        return len(rest.split(","))
    host, _, port = target.rpartition("/")[2].rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError):  # the latter of what can be no name
        return 1
    families = [family for family, *_ in found]
    # A host may have an address of either kind: that makes it no second one.
    return max(families.count(socket.AF_INET), families.count(socket.AF_INET6), 1)
