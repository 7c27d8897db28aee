"""A bookshop that never was: its books and who read what, to try Twotower on data that are not movies.

`python examples/books.py FOLDER` writes books.csv and reads.csv, the same at every time and place.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Final, TypeVar

READERS: Final = 400
SERIES_OF_A_SHELF: Final = 8
VOLUMES: Final = 5
FAVOURED: Final = 0.8
"""How often readers go on with a series of the shelf they like best."""

SHELVES: Final = {
    "Crime": (
        "Inspector",
        "Alibi",
        "Harbour",
        "Verdict",
        "Cold Case",
        "Witness",
        "Ransom",
        "Night Shift",
    ),
    "Fantasy": ("Dragon", "Rune", "Old Forest", "Crown", "Wizard", "Moon Gate", "Oath", "Giant"),
    "Garden": ("Rose", "Orchard", "Compost", "Hedge", "Balcony", "Meadow", "Kitchen Garden", "Pond"),
    "History": ("Empire", "Silk Road", "Cathedral", "Plague", "Navy", "Revolt", "Archive", "Caravan"),
    "Romance": (
        "Summer",
        "Letter",
        "Ballroom",
        "Vineyard",
        "Second Chance",
        "Island",
        "Café",
        "Wedding",
    ),
    "Science": ("Atom", "Deep Sea", "Genome", "Black Hole", "Number", "Climate", "Neuron", "Fossil"),
}
"""Each shelf, and what its series are about."""

FORENAMES: Final = (
    "ada",
    "ben",
    "cleo",
    "dai",
    "eva",
    "finn",
    "gül",
    "hugo",
    "ines",
    "jun",
    "kai",
    "lia",
)
SURNAMES: Final = ("adler", "brook", "costa", "dunn", "endo", "fuchs", "grün", "hall", "ito", "jansen")

_FIRST_DAY: Final = date(2021, 1, 1)
_OLDEST: Final = 1970

T = TypeVar("T")


@dataclass(frozen=True)
class Book:
    """A book: a volume of a series, on one shelf or on two."""

    sku: str
    title: str
    shelves: tuple[str, ...]
    published: int


def books() -> list[list[Book]]:
    """All books, series by series, each volume after the one before."""
    chance = Random(1)  # noqa: S311 - nothing here is secret
    every = []
    for shelf, subjects in SHELVES.items():
        for number, subject in enumerate(subjects[:SERIES_OF_A_SHELF], start=1):
            shelves: tuple[str, ...] = (shelf,)
            if chance.random() < 1 / 4:
                shelves = (shelf, _one_of([other for other in SHELVES if other != shelf], chance))
            year = _OLDEST + int(chance.random() * 45)
            every.append(
                [
                    Book(
                        f"{shelf[:3].upper()}-{number:02}/{volume}",
                        f"The {subject} Books, Volume {volume}",
                        shelves,
                        year + 2 * volume,
                    )
                    for volume in range(1, VOLUMES + 1)
                ]
            )
    return every


def reads(series: Sequence[Sequence[Book]]) -> Iterator[tuple[str, str, int, str]]:
    """Who read what, how it was liked (1 to 10) and when, reader by reader.

    Readers like one shelf best. They begin a series with its first volume, and go on with it.
    """
    chance = Random(2)  # noqa: S311
    for number in range(READERS):
        name = f"{FORENAMES[number % 12]}.{SURNAMES[number // 12 % 10]}.{number + 1}"
        favourite = _one_of(list(SHELVES), chance)
        day = _FIRST_DAY + timedelta(days=int(chance.random() * 700))
        read: dict[int, int] = {}  # how many volumes of each series
        for _ in range(8 + int(chance.random() * 25)):
            liked = chance.random() < FAVOURED
            place = _next_series(series, favourite, read, chance, liked=liked)
            if place is None:
                break
            book = series[place][read.get(place, 0)]
            read[place] = read.get(place, 0) + 1
            day += timedelta(days=1 + int(chance.random() * 12))
            stars = (
                7 + int(chance.random() * 4)
                if favourite in book.shelves
                else 2 + int(chance.random() * 5)
            )
            yield name, book.sku, stars, day.isoformat()


def _next_series(
    series: Sequence[Sequence[Book]],
    favourite: str,
    read: dict[int, int],
    chance: Random,
    *,
    liked: bool,
) -> int | None:
    """The series to read a volume of: most often one that was begun, if it is of the right shelf."""
    left = [
        place
        for place, volumes in enumerate(series)
        if (favourite in volumes[0].shelves) == liked and read.get(place, 0) < len(volumes)
    ]
    begun = [place for place in left if place in read]
    if begun and chance.random() < FAVOURED:
        return begun[-1]
    return _one_of(left, chance) if left else None


def _one_of(some: Sequence[T], chance: Random) -> T:
    # Of all that `random` has, only the sequence of random() is promised to stay as it is.
    return some[int(chance.random() * len(some))]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main(arguments: Sequence[str]) -> None:
    """Write both files into the folder named."""
    if len(arguments) != 1:
        sys.exit("usage: python examples/books.py FOLDER")
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    series = books()
    taken = list(reads(series))
    shop = [
        (book.sku, book.title, "|".join(book.shelves), book.published)
        for volumes in series
        for book in volumes
    ]
    _write(folder / "books.csv", ["sku", "title", "shelf", "published"], shop)
    _write(folder / "reads.csv", ["reader", "sku", "stars", "read_on"], taken)
    print(f"{folder}: {len(shop)} books, read {len(taken)} times by {READERS} readers")


if __name__ == "__main__":
    main(sys.argv[1:])
