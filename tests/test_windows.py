"""What Windows does not have is not needed: part of the suite runs without it; see windows.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FILES = [
    "endpoints/test_blobs.py",
    "inspect/test_commands.py",
    "inspect/test_doctor.py",
    "state",
    "test_cli.py",
    "test_options.py",
]
# They take long, and are in processes of their own, which have all that POSIX has.
LEFT_OUT = "not two_processes and not killed and not another_process and not doctor_looks and not doctor_ends"


@pytest.mark.skipif(os.name == "nt", reason="all of the suite runs without POSIX there")
def test_it_works_without_posix_and_with_windows_rules_of_sharing() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "tests.windows", "-p", "no:cacheprovider", "-q", "-k", LEFT_OUT]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "addon"), *sys.path]))}
    done = subprocess.run(
        [*command, *(f"tests/{name}" for name in FILES)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
