"""What a data set holds, and what was found while it was read."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from training.dataset import Dataset, FileRead
from training.findings import Finding
from training.stars import LIKED, at_stars

_FEW: Final = 5


@dataclass(frozen=True)
class Inspection:
    """A data set summed up: its files, its measures by name, what is worth knowing, what was wrong."""

    name: str
    digest: str
    files: tuple[FileRead, ...]
    measures: dict[str, str | int]
    findings: tuple[Finding, ...]

    def document(self) -> dict[str, Any]:
        """The whole as what JSON can hold."""
        findings = [
            {
                **asdict(finding),
                "examples": [{"line": line, "value": value} for line, value in finding.examples],
            }
            for finding in self.findings
        ]
        return {**asdict(self), "findings": findings}


def inspect_dataset(dataset: Dataset) -> Inspection:
    """Sum up a data set."""
    ratings, movies = dataset.ratings, dataset.movies
    by_user = ratings["user_id"].value_counts().to_numpy()
    by_movie = ratings["movie_id"].value_counts().to_numpy()
    low, high = dataset.rating_scale
    measures: dict[str, str | int] = {
        "ratings": len(ratings),
        "users": len(dataset.users),
        "movies": len(movies),
        "ratings of a user": f"{by_user.min()} to {by_user.max()}, median {np.median(by_user):g}",
        "users with one rating": int((by_user == 1).sum()),
        f"users with fewer than {_FEW}": int((by_user < _FEW).sum()),
        "movies without ratings": len(movies) - len(by_movie),
        "movies without a title": int((movies["title"] == "").sum()),
        "movies without a year": int(movies["year"].isna().sum()),
        "movies without genres": int((movies["genres"].map(len) == 0).sum()),
        "genres": len(set().union(*movies["genres"])),
        "scale": f"{low:g} to {high:g}" if dataset.rated else "none: every row counts as a like",
        "a like": f"{at_stars(LIKED, dataset.rating_scale):g} or more" if dataset.rated else "every row",
        "times": _span(dataset) if dataset.timed else "none: protocols that need them are refused",
    }
    if dataset.rated and ratings["rating"].nunique() == 1:
        measures["different ratings"] = 1
    return Inspection(dataset.name, dataset.digest, dataset.files, measures, dataset.findings)


def _span(dataset: Dataset) -> str:
    times = dataset.ratings["timestamp"]
    first, last = (time.strftime("%Y-%m-%d", time.gmtime(each)) for each in (times.min(), times.max()))
    return f"{first} to {last}"
