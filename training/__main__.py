"""`python -m training`: train a model, and say which one is served."""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from training.config import recipe_names, recipe_path
from training.dataset import EMBEDDED, Reading, read_dataset
from training.gate import check_good_enough
from training.inspection import inspect_dataset
from training.layouts import ROLES, Columns, Role, Scale
from training.progress import watched_by
from training.quiet import quiet_native_stderr
from training.report import Reporter
from training.splits import PROTOCOLS
from training.synthesis import synthesize
from twotower.bundle import list_versions, read_bundle
from twotower.errors import BundleError, SettingsError
from twotower.files import check_writable, write_atomically
from twotower.manifest import Manifest, read_manifest
from twotower.process import run
from twotower.promotion import Current, promote, read_current, rollback
from twotower.remote import RemoteBundles
from twotower.settings import S3_ADDRESS, BundleSettings

# TensorFlow takes seconds to import: what needs it is imported by the command that does.

_MOST_SEEDS = 100
_MOST_TRIALS = 100_000
_MOST_ROWS = 10**9


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
        type=_folder,
        default=str(BundleSettings().bundles),
        metavar="DIR",
        help="folder of the bundles (default: %(default)s; TWOTOWER_BUNDLES sets it)",
    )

    train = commands.add_parser("train", parents=[shared], help="train a model and write its bundle")
    _fill_train(train)

    evaluate = commands.add_parser(
        "evaluate",
        parents=[shared],
        help="judge recipes beside the baselines, on ratings they have not seen",
    )
    _fill_evaluate(evaluate)

    inspect_data = commands.add_parser(
        "inspect-data",
        help="tell what ratings there are in a folder, archive or file, and what is wrong",
    )
    inspect_data.set_defaults(command=_inspect_data)
    inspect_data.add_argument(
        "path", type=Path, metavar="PATH", nargs="?", default=EMBEDDED, help="as --data of train"
    )
    _add_reading(inspect_data)
    inspect_data.add_argument(
        "--json", type=Path, metavar="FILE", help="write the same as JSON to a file; - for here, alone"
    )

    synthesize_ = commands.add_parser(
        "synthesize", help="make up ratings of any size, in the layout of MovieLens"
    )
    _fill_synthesize(synthesize_)

    tune = commands.add_parser("tune", help="search a recipe's ranges for what does best")
    _fill_tune(tune)

    promote_ = commands.add_parser("promote", parents=[shared], help="serve a model")
    promote_.set_defaults(command=_promote)
    promote_.add_argument("model_version", metavar="VERSION", help="as `list` shows it")
    promote_.add_argument("--force", action="store_true", help="even if it is not good enough")

    back = commands.add_parser("rollback", parents=[shared], help="serve the previous model again")
    back.set_defaults(command=_rollback)

    publish = commands.add_parser(
        "publish", parents=[shared], help="copy a model to S3, and have it served from there"
    )
    publish.set_defaults(command=_publish)
    publish.add_argument("address", metavar="s3://BUCKET/PREFIX", type=_s3_address)
    publish.add_argument("--force", action="store_true", help="even if it is not good enough")
    publish.add_argument(
        "model_version", metavar="VERSION", nargs="?", help="as `list` shows it (default: the promoted)"
    )

    listing = commands.add_parser("list", parents=[shared], help="list the models there are")
    listing.set_defaults(command=_list)

    inspect = commands.add_parser("inspect", parents=[shared], help="verify a model and show what it is")
    inspect.set_defaults(command=_inspect)
    inspect.add_argument(
        "model_version", metavar="VERSION", nargs="?", help="as `list` shows it (default: the promoted)"
    )
    return parser


def _fill_train(train: argparse.ArgumentParser) -> None:
    train.set_defaults(command=_train)
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
    evaluate.set_defaults(command=_evaluate)
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
    tune.set_defaults(command=_tune)
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


def _fill_synthesize(synthesize_: argparse.ArgumentParser) -> None:
    synthesize_.set_defaults(command=_synthesize)
    synthesize_.add_argument("path", type=Path, metavar="PATH", help="the folder to make")
    for name in ("users", "movies", "ratings"):
        synthesize_.add_argument(
            f"--{name}", type=_integer(1, _MOST_ROWS), required=True, metavar="N", help="how many"
        )
    synthesize_.add_argument(
        "--seed",
        type=_integer(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="the same seed, the same ratings (default: 0)",
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


def _reading(options: argparse.Namespace) -> Reading:
    return Reading(options.columns, options.scale, options.strict)


def _train(options: argparse.Namespace) -> None:
    promoted = read_current(options.bundles) if options.unless_promoted else None
    if promoted:
        print(f"model {promoted.current} is promoted already: nothing to do")  # noqa: T201
        return
    with quiet_native_stderr():
        from training.pipeline import train  # noqa: PLC0415

    reporter = Reporter()
    with watched_by(reporter.watching):
        exported = train(
            *(options.data, options.recipe, options.bundles, options.seed, reporter),
            reading=_reading(options),
            resume=options.resume,
        )
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


def _evaluate(options: argparse.Namespace) -> None:
    for option, path in (("--json", options.json), ("--report", options.report)):
        if path:
            _check_file(option, path)
    with quiet_native_stderr():
        from training.pipeline import evaluate  # noqa: PLC0415

    reporter = Reporter()
    with watched_by(reporter.watching):
        results = evaluate(
            options.data,
            options.recipe or recipe_names(),
            list(PROTOCOLS) if options.protocol == "all" else [options.protocol],
            range(options.seeds),
            reporter,
            report=options.report,
            reading=_reading(options),
            bundles=options.bundles,
            resume=options.resume,
        )
    if options.json:
        write_atomically(options.json, json.dumps(results.rows(), indent=1).encode() + b"\n")


def _check_file(option: str, path: Path) -> None:
    if path.is_dir():
        raise SettingsError(f"{option} {path} is a folder; name a file")
    check_writable(path.parent)


def _inspect_data(options: argparse.Namespace) -> None:
    to_file = options.json and str(options.json) != "-"
    if to_file:
        _check_file("--json", options.json)
    reporter = Reporter()
    with watched_by(reporter.watching):
        inspection = inspect_dataset(read_dataset(options.path, _reading(options)))
    document = json.dumps(inspection.document(), indent=1, ensure_ascii=False)
    if options.json and not to_file:
        print(document)  # noqa: T201
        return
    reporter.inspection(inspection)
    if to_file:
        write_atomically(options.json, document.encode() + b"\n")


def _synthesize(options: argparse.Namespace) -> None:
    synthesize(
        options.path,
        users=options.users,
        movies=options.movies,
        ratings=options.ratings,
        seed=options.seed,
    )
    print(  # noqa: T201
        f"{options.path}: {options.ratings} ratings of {options.movies} movies by {options.users} users"
    )


def _tune(options: argparse.Namespace) -> None:
    name = recipe_path(options.recipe).stem
    with quiet_native_stderr():
        from training.pipeline import tune  # noqa: PLC0415

    reporter = Reporter()
    with watched_by(reporter.watching):
        tune(
            options.data,
            options.recipe,
            options.journal or Path(f"{name}.journal"),
            options.out or Path(f"{name}-tuned.toml"),
            trials=options.trials,
            seed=options.seed,
            reporter=reporter,
            reading=_reading(options),
        )


def _promote(options: argparse.Namespace) -> None:
    manifest = read_manifest(options.bundles, options.model_version)
    if not options.force:
        _check(manifest, _promoted(options.bundles))
    _tell(promote(options.bundles, options.model_version))


def _check(manifest: Manifest, promoted: Manifest | None) -> None:
    told = check_good_enough(manifest, promoted)
    print(f"model {manifest.model_version}: {told}")  # noqa: T201


def _promoted(bundles: Path) -> Manifest | None:
    """The promoted model, or None: where it is gone or damaged, there is nothing to compare with."""
    try:
        current = read_current(bundles)
        return read_manifest(bundles, current.current) if current else None
    except BundleError as error:
        print(f"the promoted model is not compared with: {error}")  # noqa: T201
        return None


def _promoted_version(bundles: Path) -> str:
    current = read_current(bundles)
    if current is None:
        raise BundleError(f"{bundles}: no model is promoted; name one")
    return current.current


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


def _publish(options: argparse.Namespace) -> None:
    version = options.model_version or _promoted_version(options.bundles)
    remote = RemoteBundles(options.address)
    if not options.force:
        _check(read_manifest(options.bundles, version), remote.promoted())
    current = remote.push(options.bundles, version)
    print(f"{options.address}: ", end="")  # noqa: T201
    _tell(current)


def _inspect(options: argparse.Namespace) -> None:
    version = options.model_version or _promoted_version(options.bundles)
    manifest, _ = read_bundle(options.bundles, version)
    print(json.dumps(manifest.model_dump(mode="json"), indent=2))  # noqa: T201


def _how_to_go_on() -> str:
    """What to do after an interruption, where something was kept."""
    command, *options = sys.argv[1:] or [""]
    if command not in {"train", "evaluate", "tune"}:
        return ""
    if command != "tune" and "--resume" not in options:
        options.append("--resume")
    return f"; to go on from there: {shlex.join(['python', '-m', 'training', command, *options])}"


if __name__ == "__main__":
    run(main, _how_to_go_on)
