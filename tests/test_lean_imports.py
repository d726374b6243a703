import subprocess
import sys

import pytest


def test_libraries_are_there_again_afterwards():
    script = """
import sys
from importlib.metadata import PackageNotFoundError, version
from lit_attr.lean_imports import not_installed
with not_installed("yaml", "PyYAML"):
    try:
        import yaml
    except ModuleNotFoundError as error:
        assert str(error) == "No module named 'yaml'"
    try:
        version("PyYAML")
    except PackageNotFoundError:
        print("absent")
    import json
import yaml
print(bool(version("PyYAML")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["absent", "True"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "meanwhile",
    [
        "",
        "from torch._dynamo import OptimizedModule; assert 'torch._dynamo.config' not in sys.modules",
        "assert torch.compiler.disable(abs)(-1) == 1; assert 'torch._dynamo.config' not in sys.modules",
        "with torch.device('meta'): torch.randn(3) * 2; assert 'torch._dynamo.config' not in sys.modules",
        "import torch._dynamo; torch._dynamo.reset()",
        "from torch._dynamo import reset",
        "import torch._dynamo.config as config; assert config is torch._dynamo.config",
        "from torch._dynamo.utils import counters; assert counters is torch._dynamo.utils.counters",
        "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)) == 2",
    ],
)
def test_the_compiler_is_there_for_whoever_needs_it(meanwhile):
    """It is the real one, once, whether it is first used meanwhile or afterwards."""
    script = f"""
import sys
import torch
from lit_attr.lean_imports import compiler_later
with compiler_later():
    assert "torch._dynamo.config" not in sys.modules
    {meanwhile}
compiled = torch.compile(torch.nn.Linear(1, 1), backend="eager")
assert isinstance(compiled, torch._dynamo.OptimizedModule)
assert compiled(torch.zeros(1)).shape == (1,)
import torch._dynamo.config
for name in ("config", "utils", "eval_frame"):
    assert getattr(torch._dynamo, name) is sys.modules["torch._dynamo." + name]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
