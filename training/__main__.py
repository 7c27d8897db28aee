"""`python -m training`: train a model, and say which one is served."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from training.config import recipe_names, recipe_path
from training.dataset import Reading, read_dataset
from training.gate import check_good_enough
from training.inspection import inspect_dataset
from training.options import Command, build_parser
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

# TensorFlow takes seconds to import: what needs it is imported by the command that does.


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Raises OperationError, one line, where it cannot be done."""
    options = build_parser(COMMANDS).parse_args(arguments)
    options.command(options)


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


COMMANDS: Final[Mapping[str, Command]] = {
    "train": _train,
    "evaluate": _evaluate,
    "inspect-data": _inspect_data,
    "synthesize": _synthesize,
    "tune": _tune,
    "promote": _promote,
    "rollback": _rollback,
    "publish": _publish,
    "list": _list,
    "inspect": _inspect,
}


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
