"""The package: what is installed, what the library needs, and the gates before it is mapped."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fusible
import pytest
import torch
from fusible import _C
from fusible.gate import LIBRARY, PACKAGE, build_info

ROOT = Path(__file__).parents[2]


def dynamic_symbols(library):
    return subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True).stdout


def needed(library):
    text = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    return re.findall(r"NEEDED.*\[(.*)\]", text)


def test_libfusible_knows_nothing_of_python():
    symbols = dynamic_symbols(LIBRARY)
    assert "fusible" in symbols
    assert not re.findall(r"\b_?Py[A-Z_]\w+|pybind11|THP\w+", symbols)
    assert not [name for name in needed(LIBRARY) if "python" in name]
    assert [name for name in needed(next(PACKAGE.glob("_C*.so"))) if "torch_python" in name]


def test_libfusible_exports_its_interface_only():
    defined = [line.split()[-1] for line in dynamic_symbols(LIBRARY).splitlines() if re.search(r" [TDBR] ", line)]
    foreign = [name for name in defined if "fusible" not in name and name not in ("__bss_start", "_edata", "_end")]
    assert not foreign, foreign[:5]


def test_the_folder_of_the_package_is_a_prefix():
    for file in ("lib/libfusible.so", "include/fusible/fusible.h", "include/fusible/report.h", "lib/cmake/fusible/fusibleConfig.cmake",
                 "share/patterns/conv.fus", "share/rules/FUS201-second-use.md", "_build_info.json"):
        assert (PACKAGE / file).is_file(), file
    assert not [path for path in PACKAGE.rglob("*") if path.is_symlink()]  # a wheel holds none
    targets = (PACKAGE / "lib/cmake/fusible/fusibleTargets.cmake").read_text()
    assert str(ROOT) not in targets, "the installed targets point into the source tree"


def test_the_build_is_recorded():
    info = build_info()
    assert info["torch"] == _C.built_for_torch() == torch.__version__.split("+")[0]
    assert info["version"] == _C.version() == fusible.version()
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{info["version"]}"' in pyproject


def test_the_stub_names_what_the_extension_has():
    stub = (PACKAGE / "_C.pyi").read_text()
    assert set(re.findall(r"^def (\w+)", stub, re.M)) == {name for name in dir(_C) if callable(getattr(_C, name)) and name[0].islower()}
    assert (PACKAGE / "py.typed").exists()


def test_every_public_name_is_there_and_documented():
    for name in fusible.__all__:
        assert getattr(fusible, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'fusee'"):
        fusible.fusee


@pytest.fixture
def copy(tmp_path):
    """The package in a folder of its own, to be damaged."""
    target = tmp_path / "site" / "fusible"
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__", "include"))
    return target


def import_error(python, copy, before="pass"):
    code = f"""
import sys
sys.path.insert(0, {str(copy.parent)!r})
{before}
try:
    import fusible
except ImportError as error:
    print(error)
print("MAPPED" if "libfusible" in open("/proc/self/maps").read() else "NOT MAPPED")
"""
    return python("-c", code).stdout


def test_another_torch_is_refused_before_anything_is_mapped(python, copy):
    info = json.loads((copy / "_build_info.json").read_text())
    (copy / "_build_info.json").write_text(json.dumps({**info, "torch": "2.12.1"}))
    said = import_error(python, copy)
    assert "built for torch 2.12.1" in said and torch.__version__ in said and "pip install torch==2.12.1" in said
    assert "NOT MAPPED" in said


def test_no_torch_is_a_sentence(python, copy):
    said = import_error(python, copy, "sys.modules['torch'] = None")
    assert "pip install torch==2.13.0" in said and "NOT MAPPED" in said


def test_sources_without_a_build_are_a_sentence(python, copy):
    (copy / "_build_info.json").unlink()
    assert "pip install --no-build-isolation ." in import_error(python, copy)


def test_a_library_that_does_not_load_names_both_versions(python, copy):
    (copy / "lib" / "libfusible.so").write_bytes(b"\x7fELF not a library")
    said = import_error(python, copy)
    assert "built for torch 2.13.0" in said and f"into torch {torch.__version__}" in said and "libfusible.so" in said


def test_the_copy_itself_imports(python, copy):
    assert import_error(python, copy) == "MAPPED\n"


@pytest.mark.skipif("FUSIBLE_BUILD_DIR" not in os.environ, reason="FUSIBLE_BUILD_DIR, which make sets, names the build to install from")
def test_pip_installs_a_package_that_stands_alone(tmp_path, archive, python):
    target = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--target", target, ROOT], check=True)
    code = f"""
import sys
sys.path.insert(0, {str(target)!r})
import fusible
assert fusible.__file__.startswith({str(target)!r})
assert {str(target)!r} in open("/proc/self/maps").read()
print(fusible.report(fusible.fuse(fusible.load({str(archive)!r}))).counts["fused"])
"""
    assert int(python("-c", code, cwd=tmp_path).stdout) >= 2
    assert (target / "bin" / "fusible").exists()
    assert (target / "fusible" / "lib" / "cmake" / "fusible" / "fusibleConfig.cmake").exists()
