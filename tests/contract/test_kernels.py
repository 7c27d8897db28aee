"""The compiled loops are those of their source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from services import ROOT


def test_the_library_is_what_the_source_compiles_to(tmp_path: Path) -> None:
    """To the byte: as images are, it is built the same anywhere."""
    anew = tmp_path / "libkernels.so"
    subprocess.run([ROOT / "twotower" / "compile_kernels.sh", sys.executable, anew], check=True)
    assert anew.read_bytes() == (ROOT / "twotower" / "libkernels.so").read_bytes()


def test_a_library_that_is_missing_is_told_with_what_makes_it(tmp_path: Path) -> None:
    package = tmp_path / "twotower"
    package.mkdir()
    for name in ("__init__.py", "kernels.py", "arrays.py", "errors.py"):
        (package / name).write_bytes((ROOT / "twotower" / name).read_bytes())
    answer = subprocess.run(
        [sys.executable, "-c", "import twotower.kernels"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode
    assert "`make kernels` compiles it" in answer.stderr
