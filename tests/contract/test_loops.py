"""The compiled loops are those of their source."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services import ROOT

_LIBRARY = ROOT / "twotower" / "libloops.so"


def test_the_library_is_what_the_source_compiles_to(tmp_path: Path) -> None:
    """To the byte: as images are, it is built the same anywhere."""
    anew = tmp_path / "libloops.so"
    subprocess.run([ROOT / "twotower" / "compile_loops.sh", sys.executable, anew], check=True)
    assert anew.read_bytes() == _LIBRARY.read_bytes()


@pytest.mark.parametrize(
    ("library", "source", "error"),
    [
        (None, None, "libloops.so cannot be loaded, `make loops` compiles it"),
        (_LIBRARY, "changed", "libloops.so is of another loops.c, `make loops` compiles it anew"),
    ],
)
def test_a_library_missing_or_of_another_source_is_told_with_what_makes_it(
    library: Path | None, source: str | None, error: str, tmp_path: Path
) -> None:
    package = tmp_path / "twotower"
    shutil.copytree(ROOT / "twotower", package, ignore=shutil.ignore_patterns("libloops.so"))
    if library:
        shutil.copy(library, package)
    if source:
        (package / "loops.c").write_text(source)
    answer = subprocess.run(
        [sys.executable, "-c", "import twotower.loops"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode
    assert error in answer.stderr
