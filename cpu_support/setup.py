"""Puts the ``.pth`` file at the top of site-packages, which setuptools' declarative settings cannot say."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPth(build_py):
    """Copies ``sophiavl_torchvision_cpu.pth`` beside the module."""

    pth = "sophiavl_torchvision_cpu.pth"

    def run(self):
        super().run()
        shutil.copy(self.pth, Path(self.build_lib) / self.pth)

    def get_outputs(self, include_bytecode=1):
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib) / self.pth)]


setup(py_modules=["sophiavl_torchvision_cpu"], cmdclass={"build_py": BuildWithPth})
