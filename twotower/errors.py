"""The errors of Twotower. `twotower.codes` has how each reads over gRPC and HTTP.

TwotowerError
├── RequestError               a request ends in it
│   ├── InvalidRequest         a field is missing, of the wrong kind, or outside what is allowed
│   │   ├── MalformedRequest   what came is no HTTP
│   │   ├── HeadTooLarge
│   │   ├── TooSlow            it did not come whole in time
│   │   ├── MalformedBody      the body is not JSON
│   │   ├── BodyTooLarge
│   │   └── UnsupportedMediaType
│   ├── NotFound
│   │   ├── UserNotFound
│   │   └── MovieNotFound
│   ├── Unavailable            a service cannot be reached, or is shutting down
│   │   ├── NotReady           no model is loaded yet
│   │   └── ModelNotServed     the named model version is not loaded here
│   ├── DeadlineExceeded
│   └── InternalError          a fault of our own
│       └── BadAnswer          a service failed, or answered with what cannot be
└── OperationError             a command or a start-up ends in it
    ├── BundleError            a bundle is missing, damaged or of another format
    ├── DataError              ratings or movies cannot be read
    │   ├── TooFewRatings      none are left to learn from or to judge by
    │   └── NoTimestamps       it is not known when ratings were given
    ├── TrainingError          a fit went astray
    └── SettingsError          a setting is missing or not allowed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_MOST_SHOWN: Final = 80
"""Characters of what was given, in an error's text."""


class TwotowerError(Exception):
    """Any error that Twotower raises on purpose. Its text is one sentence for people."""


class RequestError(TwotowerError):
    """A request ends in it. `field` is the path of the field at fault, or empty."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidRequest(RequestError):
    """A field is missing, of the wrong kind, or outside what is allowed."""


class MalformedRequest(InvalidRequest):
    """What came is no HTTP request."""


class HeadTooLarge(InvalidRequest):
    """The head of an HTTP request is longer than allowed."""


class TooSlow(InvalidRequest):
    """An HTTP request did not come whole in time."""


class MalformedBody(InvalidRequest):
    """The body of an HTTP request is not JSON."""


class BodyTooLarge(InvalidRequest):
    """The body of an HTTP request is longer than allowed."""


class UnsupportedMediaType(InvalidRequest):
    """The body of an HTTP request is not announced as JSON."""


class NotFound(RequestError):
    """What the request names does not exist."""


class UserNotFound(NotFound):
    """The user id is not in the model."""


class MovieNotFound(NotFound):
    """The movie id is not in the catalogue."""


class Unavailable(RequestError):
    """A service cannot be reached or is shutting down; a later try may succeed."""


class NotReady(Unavailable):
    """No model is loaded yet."""


class ModelNotServed(Unavailable):
    """The named model version is not loaded here; `served` lists what is, the preferred one first."""

    def __init__(self, message: str, *, served: Sequence[str] = ()) -> None:
        super().__init__(message, field="model_version")
        self.served = tuple(served)


class DeadlineExceeded(RequestError):
    """The request's time ran out."""


class InternalError(RequestError):
    """A fault of our own. The client sees an opaque text and the request id."""


class BadAnswer(InternalError):
    """A service failed, or answered with what cannot be, such as a score that is not finite."""


class OperationError(TwotowerError):
    """A command or a start-up ends in it: one line, exit status 1."""


class BundleError(OperationError):
    """A bundle is missing, damaged or of another format."""


class DataError(OperationError):
    """Ratings or movies cannot be read."""


class TooFewRatings(DataError):
    """None are left to learn from or to judge by."""


class NoTimestamps(DataError):
    """It is not known when ratings were given."""


class TrainingError(OperationError):
    """A fit went astray."""


class SettingsError(OperationError):
    """A setting is missing or not allowed."""


def shown(given: str) -> str:
    """What was given as error texts have it: quoted, and no longer than they can be."""
    text = repr(given)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
