"""Asking a running process whether it is healthy, as whoever runs its container does."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from typing import Final

from twotower.errors import OperationError

_PATIENCE_SECONDS: Final = 2.0
_THIS_MACHINE: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Where to ask what listens on every address."""


def check_grpc(host: str, port: int) -> None:
    """Ask a gRPC service. Raises OperationError with the reason where it is not serving."""
    # gRPC takes a while to import, which the gateway's check does without.
    import grpc  # noqa: PLC0415
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    host = _THIS_MACHINE.get(host, host)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_PATIENCE_SECONDS
            )
        except grpc.RpcError as error:
            raise OperationError(
                f"unhealthy: {address} does not answer ({error.code().name})"
            ) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise OperationError(f"unhealthy: {address} is {status}")


def check_http(host: str, port: int, path: str) -> None:
    """Ask an HTTP service. Raises OperationError with the reason where its answer is not 200."""
    host = _THIS_MACHINE.get(host, host)
    with closing(HTTPConnection(host, port, timeout=_PATIENCE_SECONDS)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            raise OperationError(f"unhealthy: {host}:{port} does not answer ({error})") from error
    if answer.status != 200:  # noqa: PLR2004
        reason = str(answer.status)
        with suppress(ValueError, KeyError, TypeError):
            reason = json.loads(body)["detail"]
        raise OperationError(f"unhealthy: {reason}")
