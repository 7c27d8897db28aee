"""What the data call movies and users, where that is no number: `external_ids.json` of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Self

import numpy as np
from pydantic import ValidationError

from twotower.arrays import Ints
from twotower.errors import BundleError, InvalidRequest, shown
from twotower.manifest import StrictModel, first_fault

EXTERNAL_IDS: Final = "external_ids.json"


class ExternalIds(StrictModel):
    """External ids row by row, as in movies.csv and as in histories.npz; None where ids are numbers."""

    movies: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None

    def __bool__(self) -> bool:
        return self.movies is not None or self.users is not None

    def check(self, movies: int, users: int) -> None:
        """Raise BundleError unless there is one for each, none is empty, and none is there twice."""
        for kind, names, count in (("movies", self.movies, movies), ("users", self.users, users)):
            if names is None:
                continue
            if len(names) != count:
                raise BundleError(f"{EXTERNAL_IDS}: names {len(names)} {kind}, there are {count}")
            if "" in names or len(set(names)) < count:
                raise BundleError(f"{EXTERNAL_IDS}: of {kind}, an id is empty, or is there twice")

    def write(self) -> bytes:
        """The file."""
        return self.model_dump_json().encode()

    @classmethod
    def read(cls, content: bytes) -> Self:
        """The inverse of `write`. Raises BundleError."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise BundleError(f"{EXTERNAL_IDS}: {first_fault(error)}") from error


class Names:
    """The ids of a model's movies, or of its users, by what the data call them."""

    def __init__(self, kind: str, ids: Ints, external_ids: Sequence[str] | None) -> None:
        """`kind`: "movies" or "users", for error texts. ids: ascending, (n,); external_ids: of each."""
        self._kind, self._ids = kind, ids
        self._id_of: dict[str, int] | None = None
        if external_ids is not None:
            self._id_of = dict(zip(external_ids, ids.tolist(), strict=True))

    def find(self, external_id: str, field: str) -> int | None:
        """The id, or None where there is none such. Raises InvalidRequest as `check` does."""
        return self.check(field).get(external_id)

    def check(self, field: str) -> Mapping[str, int]:
        """The ids by external id. Raises InvalidRequest, naming the field, where all ids are numbers."""
        if self._id_of is None:
            raise InvalidRequest(
                f"{field}: the {self._kind} of this model have no external ids, their ids are numbers",
                field=field,
            )
        return self._id_of

    def has(self, number: int) -> bool:
        """Whether that is one of the ids."""
        place = int(np.searchsorted(self._ids, number))
        return place < len(self._ids) and int(self._ids[place]) == number


def named_twice(field: str, external_id: str, other: str) -> InvalidRequest:
    """The refusal of an external id that is given beside a number, in the field `other`."""
    return InvalidRequest(
        f"{field}: {shown(external_id)} goes not with {other}, give one of them", field=field
    )
