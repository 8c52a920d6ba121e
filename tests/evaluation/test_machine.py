"""The record of the machine, and the list of what is missing."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from slimrank.evaluation.machine import PACKAGES, doctor, instruction_set, machine, named_instructions, package

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_the_record_is_json_and_names_what_was_measured():
    record = machine()
    assert json.loads(json.dumps(record)) == record
    assert list(record) == ["processor", "cores", "instruction_set", "system", "versions"]
    assert record["versions"]["python"] == sys.version.split()[0]
    assert record["versions"]["numpy"]
    assert 1 <= record["cores"] <= os.cpu_count()
    assert record["instruction_set"]


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("", []),
        ("fpu sse4_2 avx", []),
        ("avx512f avx2 avx512_bf16 avx512_vnni", ["avx2", "avx512", "avx512_vnni", "avx512_bf16"]),
        ("avx2 avx_vnni amx_bf16 amx_tile amx_int8", ["avx2", "avx_vnni", "amx"]),
        ("fp asimd asimddp", ["neon", "dotprod"]),
    ],
)
def test_instructions_are_named_from_flags(flags, names):
    assert named_instructions(flags) == names


def test_the_instruction_set_is_in_the_flags_of_this_processor():
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        pytest.skip("the processor's flags are known on Linux only")
    assert ("avx2" in instruction_set()) == (" avx2 " in path.read_text())


def test_a_missing_package_names_the_command_that_installs_it():
    assert package("numpy").ok
    assert not package("no-such-package").ok
    assert package("no-such-package").advice == "pip install slimrank"
    assert package("no-such-package", "serve").advice == 'pip install "slimrank[serve]"'


def test_doctor_looks_at_every_package_once():
    names = [finding.name for finding in doctor()]
    assert names[:5] == ["slimrank", "python", "processor", "cores", "instruction set"]
    assert names[5:] == [name for group in PACKAGES.values() for name in group]
    assert all(finding.found for finding in doctor())


def test_the_packages_are_those_of_the_project_file():
    if not PROJECT.is_file():
        pytest.skip("no pyproject.toml beside the tests")
    project = tomllib.loads(PROJECT.read_text())["project"]
    wanted = {"": project["dependencies"]} | {
        extra: project["optional-dependencies"][extra] for extra in PACKAGES if extra
    }
    named = {extra: [re.split(r"[^\w-]", line)[0] for line in lines] for extra, lines in wanted.items()}
    assert {extra: sorted(names) for extra, names in PACKAGES.items()} == {k: sorted(v) for k, v in named.items()}


def test_doctor_imports_none_of_what_it_looks_for():
    code = "import sys; from slimrank.evaluation.machine import doctor; doctor(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
