"""What AWS refuses, or its client cannot do, as one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
)

from twotower.errors import OperationError, SettingsError

_DENIED_ACTION: Final = re.compile(r"not authorized to perform: ([\w-]+:\w+)")
_EXPIRED: Final = frozenset({"ExpiredTokenException", "ExpiredToken", "RequestExpired"})
_NOT_ACCEPTED: Final = frozenset(
    {
        "AuthFailure",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_DENIED: Final = frozenset({"403", "AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})


@contextmanager
def explained(service: str) -> Iterator[None]:
    """Within the block, what a service or its client refuses is an OperationError of one line.

    The service is named as people name it, such as ECR; in lower case, its actions begin so.
    """
    try:
        yield
    except ClientError as error:
        raise OperationError(_refusal(service, error)) from error
    except NoCredentialsError as error:
        raise OperationError(
            "there are no AWS credentials: log in (`aws sso login`), or set AWS_PROFILE, "
            "or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except NoRegionError as error:
        raise SettingsError("there is no AWS region: set AWS_DEFAULT_REGION") from error
    except ProfileNotFound as error:
        raise SettingsError(f"{error}; set AWS_PROFILE to one that there is") from error
    except EndpointConnectionError as error:
        url = error.kwargs["endpoint_url"]
        raise OperationError(
            f"{service} cannot be reached at {url}: check the region, and the network"
        ) from error
    except BotoCoreError as error:
        raise OperationError(f"AWS: {one_line(str(error))}") from error


def permission_fault(text: str) -> str | None:
    """What the text says that may not be done, if it says so: creating may take other actions too."""
    found = _DENIED_ACTION.search(text)
    return _no_permission(found[1]) if found else None


def one_line(text: str) -> str:
    """The text without its line ends."""
    return " ".join(text.split())


def _refusal(service: str, error: ClientError) -> str:
    code = error.response["Error"]["Code"]
    message = error.response["Error"].get("Message", "")
    if code in _EXPIRED:
        return "the AWS credentials have expired: log in again"
    if code in _NOT_ACCEPTED:
        return f"AWS does not accept the credentials ({code}): check them, and this machine's clock"
    if code in _DENIED:
        return permission_fault(message) or _no_permission(f"{service.lower()}:{error.operation_name}")
    return f"{service} refuses {error.operation_name}: {code}: {one_line(message)}"


def _no_permission(action: str) -> str:
    return f"no permission for {action}; docs/aws.md lists the actions that it takes"
