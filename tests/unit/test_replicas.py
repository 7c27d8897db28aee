from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.replicas import count_replicas

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize(
    ("target", "count"),
    [
        ("ipv4:10.0.0.1:50052,10.0.0.2:50052", 2),
        ("ipv6:[::1]:50052", 1),
        ("dns:///127.0.0.1:50051", 1),
        ("127.0.0.1:50051", 1),
        ("dns:///[::1]:50051", 1),
        ("dns:///no-such-host.invalid:50051", 1),
        ("dns:///:50051", 1),
        ("dns:///a..b:50051", 1),
        (f"dns:///{'a' * 64}:50051", 1),
    ],
)
def test_what_a_target_tells(target: str, count: int) -> None:
    assert asyncio.run(count_replicas(target)) == count


@pytest.mark.parametrize(
    ("families", "count"), [([V4] * 3, 3), ([V4, V6], 1), ([V4, V4, V6], 2), ([V6] * 4, 4)]
)
def test_each_address_of_a_name_is_a_replica(
    monkeypatch: pytest.MonkeyPatch, families: Sequence[int], count: int
) -> None:
    asked = []

    async def look_up(_loop: Any, host: str, port: str, **_: Any) -> list[Any]:
        asked.append((host, port))
        return [(family, socket.SOCK_STREAM, 6, "", ()) for family in families]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    assert asyncio.run(count_replicas("dns:///retrieval:50052")) == count
    assert asked == [("retrieval", "50052")]
