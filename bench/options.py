"""Values of options."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A number of an option. Raises ArgumentTypeError for what is none, or 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a whole number, 1 or more")
    return int(text)
