"""The files of the demo, and where they are, in the package or wherever they were built."""

from pathlib import Path

ASSETS = Path(__file__).parent
# What stands for the demo where a run or token file is asked for.
DEMO = "demo"
TOKENS = "tokens.npy"
TOKENIZER = "tokenizer.json"
FIGURES = "figures.json"
SEEDS = (0, 1, 2)


def run_folder(seed: int = 0, assets: Path = ASSETS) -> Path:
    """The folder of the demo's decomposition run.

    Args:
        seed: Of the decomposition; 0 is the demo's run, the others show whether a result depends on the seed.
        assets: Above it.
    """
    return assets / "runs" / f"demo-s-litdemo{seed}"
