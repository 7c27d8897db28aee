"""`python -m training`: train a model, and say which one is served."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from training.config import recipe_names
from training.evaluate import check_good_enough
from training.movielens import EMBEDDED
from training.quiet import quiet_native_stderr
from training.report import Reporter
from twotower.bundle import list_versions, read_bundle
from twotower.errors import BundleError
from twotower.manifest import read_manifest
from twotower.process import run
from twotower.promotion import Current, promote, read_current, rollback
from twotower.settings import BundleSettings

# TensorFlow takes seconds to import: what needs it is imported by the command that does.


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Raises OperationError, one line, where it cannot be done."""
    options = _parser().parse_args(arguments)
    options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train a recommender, and say which model is served."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--bundles",
        type=Path,
        default=BundleSettings().bundles,
        metavar="DIR",
        help="folder of the bundles (default: %(default)s; TWOTOWER_BUNDLES sets it)",
    )

    train = commands.add_parser("train", parents=[shared], help="train a model and write its bundle")
    train.set_defaults(command=_train)
    train.add_argument(
        "--data",
        type=Path,
        default=EMBEDDED,
        metavar="PATH",
        help="folder or .zip with ratings.csv and movies.csv (default: MovieLens ml-latest-small, 2016)",
    )
    train.add_argument(
        "--recipe",
        default="reference",
        help=f"{', '.join(recipe_names())}, or the path of a .toml file (default: %(default)s)",
    )
    train.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="the same seed, the same model (default: 0)"
    )
    train.add_argument("--promote", action="store_true", help="promote the model when it is done")
    train.add_argument(
        "--force", action="store_true", help="promote it even if it predicts worse than a constant"
    )

    promote_ = commands.add_parser("promote", parents=[shared], help="serve a model")
    promote_.set_defaults(command=_promote)
    promote_.add_argument("model_version", metavar="VERSION", help="as `list` shows it")
    promote_.add_argument("--force", action="store_true", help="even if it is not good enough")

    back = commands.add_parser("rollback", parents=[shared], help="serve the previous model again")
    back.set_defaults(command=_rollback)

    listing = commands.add_parser("list", parents=[shared], help="list the models there are")
    listing.set_defaults(command=_list)

    inspect = commands.add_parser("inspect", parents=[shared], help="verify a model and show what it is")
    inspect.set_defaults(command=_inspect)
    inspect.add_argument(
        "model_version", metavar="VERSION", nargs="?", help="as `list` shows it (default: the promoted)"
    )
    return parser


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text!r}, allowed is an integer from 0 to {2**32 - 1}")
    return int(text)


def _train(options: argparse.Namespace) -> None:
    with quiet_native_stderr():
        from training.pipeline import train  # noqa: PLC0415

    reporter = Reporter()
    exported = train(options.data, options.recipe, options.bundles, options.seed, reporter)
    manifest = exported.manifest
    reporter.say(
        f"model {manifest.model_version} is in {options.bundles / manifest.model_version}: "
        f"{exported.distinct_movies} different vectors for {manifest.dataset.movies} movies; served "
        f"and Keras embeddings differ by at most {exported.largest_difference:.1e}"
    )
    if options.promote:
        _promote(argparse.Namespace(**vars(options), model_version=manifest.model_version))
    else:
        reporter.say(f"to serve it: python -m training promote {manifest.model_version}")


def _promote(options: argparse.Namespace) -> None:
    manifest = read_manifest(options.bundles, options.model_version)
    if not options.force:
        check_good_enough(manifest.metrics, manifest.recipe, manifest.rating_scale)
    _tell(promote(options.bundles, options.model_version))


def _rollback(options: argparse.Namespace) -> None:
    _tell(rollback(options.bundles))


def _tell(current: Current) -> None:
    previous = f"; the previous one is {current.previous}" if current.previous else ""
    print(f"model {current.current} is promoted{previous}")  # noqa: T201


def _list(options: argparse.Namespace) -> None:
    versions = list_versions(options.bundles)
    if not versions:
        raise BundleError(f"{options.bundles}: there is no bundle; `python -m training train` makes one")
    reporter, manifests, faults = Reporter(), [], []
    for version in versions:
        try:
            manifests.append(read_manifest(options.bundles, version))
        except BundleError as error:
            faults.append(str(error))
    try:
        current = read_current(options.bundles)
    except BundleError as error:
        current = None
        faults.append(str(error))
    reporter.bundles(sorted(manifests, key=lambda manifest: manifest.created_at), current)
    for fault in faults:
        reporter.say(fault)


def _inspect(options: argparse.Namespace) -> None:
    version = options.model_version
    if version is None:
        current = read_current(options.bundles)
        if current is None:
            raise BundleError(f"{options.bundles}: no model is promoted; name one")
        version = current.current
    manifest, _ = read_bundle(options.bundles, version)
    print(json.dumps(manifest.model_dump(mode="json"), indent=2))  # noqa: T201


if __name__ == "__main__":
    run(main)
