"""What pyproject.toml cannot say: the demo's data lies outside of the packages, and a wheel contains it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DATA, IN_WHEEL = Path("data", "online-retail"), Path("seqrec", "demo_data")


class BuildWithDemo(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # a clone has the data where it is
            target = Path(self.build_lib) / IN_WHEEL
            target.mkdir(parents=True, exist_ok=True)
            for path in DATA.iterdir():
                shutil.copyfile(path, target / path.name)


setup(cmdclass={"build_py": BuildWithDemo})
