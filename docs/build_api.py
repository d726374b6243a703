"""Writes the API reference from the docstrings: `python docs/build_api.py FOLDER`."""

import pkgutil
import sys
from pathlib import Path

import pdoc

import lit_attr

if __name__ == "__main__":
    for name in lit_attr.__all__:  # loaded on first use otherwise, which pdoc does not see
        vars(lit_attr)[name] = getattr(lit_attr, name)
    packages = [module.name for module in pkgutil.iter_modules(lit_attr.__path__, "lit_attr.") if module.ispkg]
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("lit_attr", *packages, output_directory=Path(sys.argv[1]))
