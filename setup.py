"""Drives the CMake build that everything else uses, and puts what it installs into the package's folder."""
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TORCH = "2.13.0"


class CMakeBuild(build_ext):
    """One fake extension stands for all that CMake builds.

    CMAKE_ARGS: further arguments of the configuration. FUSIBLE_BUILD_DIR: the build folder, shared with `make`.
    """

    def run(self):
        if find_spec("torch") is None:
            raise SystemExit(f"fusible is built against the torch of your environment, and none was found: run `pip install torch=={TORCH}`, "
                             "then `pip install --no-build-isolation .`")
        package = ROOT / "python" / "fusible" if self.inplace else Path(self.build_lib).resolve() / "fusible"
        build = Path(os.environ.get("FUSIBLE_BUILD_DIR", ROOT / "build" / "package"))
        generator = [] if (build / "CMakeCache.txt").exists() else ["-G", "Ninja"]
        self.cmake("-S", ROOT, "-B", build, *generator, "-DFUSIBLE_PACKAGE_LAYOUT=ON", f"-DPython3_EXECUTABLE={sys.executable}",
                   "-DCMAKE_INSTALL_LIBDIR=lib", *self.options())
        self.cmake("--build", build, "--parallel", os.cpu_count())
        self.cmake("--install", build, "--prefix", package, "--component", "fusible")

    @staticmethod
    def options():
        given = os.environ.get("CMAKE_ARGS", "").split()
        return given if any("FUSIBLE_TESTS" in option for option in given) else ["-DFUSIBLE_TESTS=OFF", *given]

    @staticmethod
    def cmake(*arguments):
        command = ["cmake", *map(str, arguments)]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            raise SystemExit("cmake >= 3.25 was needed, none was found: run `apt-get install cmake ninja-build g++`") from None
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"`{' '.join(command)}` failed with exit code {error.returncode}; its messages are above") from None

    def get_outputs(self):
        return []

    def get_output_mapping(self):
        return {}


setup(ext_modules=[Extension("fusible._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
