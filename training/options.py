"""The command line of training: commands, their options, and what is allowed for each."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from training.config import recipe_names
from training.dataset import EMBEDDED
from training.layouts import ROLES, Columns, Role, Scale
from training.splits import PROTOCOLS
from twotower.settings import S3_ADDRESS, BundleSettings

Command = Callable[[argparse.Namespace], None]

_MOST_SEEDS: Final = 100
_MOST_TRIALS: Final = 100_000
_MOST_ROWS: Final = 10**9


def build_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """What reads a command line: `options.command` is then that of the name given."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train a recommender, and say which model is served."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    bundles = _bundles()
    for name, (help_, fill, in_bundles) in _FILLED.items():
        subparser = subparsers.add_parser(name, help=help_, parents=[bundles] if in_bundles else [])
        subparser.set_defaults(command=commands[name])
        fill(subparser)
    return parser


def _bundles() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--bundles",
        type=_folder,
        default=str(BundleSettings().bundles),
        metavar="DIR",
        help="folder of the bundles (default: %(default)s; TWOTOWER_BUNDLES sets it)",
    )
    return shared


def _fill_train(train: argparse.ArgumentParser) -> None:
    _add_data(train)
    _add_recipe(train)
    _add_seed(train)
    train.add_argument("--promote", action="store_true", help="promote the model when it is done")
    train.add_argument("--force", action="store_true", help="promote it even if it is not good enough")
    train.add_argument(
        "--unless-promoted", action="store_true", help="do nothing where a model is promoted already"
    )
    _add_resume(train)


def _fill_evaluate(evaluate: argparse.ArgumentParser) -> None:
    _add_data(evaluate)
    evaluate.add_argument(
        "--recipe",
        action="append",
        metavar="RECIPE",
        help=f"as for train; may be given again (default: {', '.join(recipe_names())})",
    )
    evaluate.add_argument(
        "--protocol",
        choices=[*PROTOCOLS, "all"],
        default="all",
        help="which ratings are held out (default: %(default)s)",
    )
    evaluate.add_argument(
        "--seeds",
        type=_integer(1, _MOST_SEEDS),
        default=1,
        metavar="N",
        help="judge recipes with seeds 0 to N - 1 (default: 1)",
    )
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write what was measured to a file")
    evaluate.add_argument(
        "--report", type=Path, metavar="FILE", help="write it as a web page, with plots"
    )
    _add_resume(evaluate)


def _fill_tune(tune: argparse.ArgumentParser) -> None:
    _add_data(tune)
    _add_recipe(tune)
    _add_seed(tune)
    tune.add_argument(
        "--trials",
        type=_integer(1, _MOST_TRIALS),
        default=50,
        metavar="N",
        help="how many in all, those in the journal included (default: %(default)s)",
    )
    tune.add_argument(
        "--journal",
        type=Path,
        metavar="FILE",
        help="where trials are kept, to go on from (default: RECIPE.journal)",
    )
    tune.add_argument(
        "--out", type=Path, metavar="FILE", help="the recipe to write (default: RECIPE-tuned.toml)"
    )


def _fill_synthesize(synthesize: argparse.ArgumentParser) -> None:
    synthesize.add_argument("path", type=Path, metavar="PATH", help="the folder to make")
    for name in ("users", "movies", "ratings"):
        synthesize.add_argument(
            f"--{name}", type=_integer(1, _MOST_ROWS), required=True, metavar="N", help="how many"
        )
    synthesize.add_argument(
        "--seed",
        type=_integer(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="the same seed, the same ratings (default: 0)",
    )


def _fill_inspect_data(inspect_data: argparse.ArgumentParser) -> None:
    inspect_data.add_argument(
        "path", type=Path, metavar="PATH", nargs="?", default=EMBEDDED, help="as --data of train"
    )
    _add_reading(inspect_data)
    inspect_data.add_argument(
        "--json", type=Path, metavar="FILE", help="write the same as JSON to a file; - for here, alone"
    )


def _fill_promote(promote: argparse.ArgumentParser) -> None:
    promote.add_argument("model_version", metavar="VERSION", help="as `list` shows it")
    promote.add_argument("--force", action="store_true", help="even if it is not good enough")


def _fill_publish(publish: argparse.ArgumentParser) -> None:
    publish.add_argument("address", metavar="s3://BUCKET/PREFIX", type=_s3_address)
    publish.add_argument("--force", action="store_true", help="even if it is not good enough")
    _add_version(publish)


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model_version", metavar="VERSION", nargs="?", help="as `list` shows it (default: the promoted)"
    )


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe",
        default="hybrid",
        help=f"{', '.join(recipe_names())}, or the path of a .toml file (default: %(default)s)",
    )


def _add_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resume", action="store_true", help="go on where one like it was interrupted, to the same end"
    )


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=_integer(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="the same seed, the same model (default: 0)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        default=EMBEDDED,
        metavar="PATH",
        help="folder, archive or file of ratings (default: MovieLens ml-latest-small, 2016)",
    )
    _add_reading(parser)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--columns",
        type=_columns,
        default={},
        metavar="user=NAME,item=NAME,...",
        help=f"your names for the columns {', '.join(ROLES)}; numbers, from 1, where there is no header",
    )
    parser.add_argument(
        "--scale",
        type=_scale,
        metavar="LOW,HIGH",
        help="what ratings may be (default: what the format says, or what there is)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first row that is not as it should be"
    )


def _columns(text: str) -> Columns:
    named: dict[Role, str] = {}
    for pair in text.split(","):
        role, _, name = pair.partition("=")
        if role not in ROLES or not name or role in named or name in named.values():
            raise argparse.ArgumentTypeError(
                f"{pair!r}, allowed is ROLE=NAME, once for each name and each of {', '.join(ROLES)}"
            )
        named[role] = name
    return named


def _scale(text: str) -> Scale:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}, allowed are two numbers, the lower first: 0,10")
    return low, high


def _folder(text: str) -> Path:
    if text.lower().startswith("s3:"):
        raise argparse.ArgumentTypeError(
            f"{text!r} lies in S3, where only services read: name a folder, and `publish` from there"
        )
    return Path(text)


def _s3_address(text: str) -> str:
    if not re.fullmatch(S3_ADDRESS, text):
        raise argparse.ArgumentTypeError(f"{text!r}, allowed is s3://bucket or s3://bucket/prefix")
    return text


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{text!r}, allowed is an integer from {low} to {high}")
        return int(text)

    return parse


_FILLED: Final[Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], object], bool]]] = {
    "train": ("train a model and write its bundle", _fill_train, True),
    "evaluate": (
        "judge recipes beside the baselines, on ratings they have not seen",
        _fill_evaluate,
        True,
    ),
    "inspect-data": (
        "tell what ratings there are in a folder, archive or file, and what is wrong with it",
        _fill_inspect_data,
        False,
    ),
    "synthesize": ("make up ratings of any size, in the layout of MovieLens", _fill_synthesize, False),
    "tune": ("search a recipe's ranges for what does best", _fill_tune, False),
    "promote": ("serve a model", _fill_promote, True),
    "rollback": ("serve the previous model again", lambda _: None, True),
    "publish": ("copy a model to S3, and have it served from there", _fill_publish, True),
    "list": ("list the models there are", lambda _: None, True),
    "inspect": ("verify a model and show what it is", _add_version, True),
}
"""Each command's help, what adds its options, and whether it looks into a folder of bundles."""
