import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "lit_attr",
        "lit_attr.errors",
        "lit_attr.topology",
        *(f"lit_attr.topology.{n}" for n in ("address", "choice", "graph", "paths", "words")),
    ],
)
def test_names_are_importable_without_torch(module: str):
    heavy = ("torch", "lightning", "numpy", "wandb")
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
