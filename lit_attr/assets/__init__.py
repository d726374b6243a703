"""The files of the demo: names, and folders of its runs."""

from pathlib import Path

ASSETS = Path(__file__).parent
# The word that stands for the demo where a run or a token file is asked for.
DEMO = "demo"
TOKENS = "tokens.npy"
TOKENIZER = "tokenizer.json"
FIGURES = "figures.json"
SEEDS = (0, 1, 2)


def run_folder(seed: int = 0, assets: Path = ASSETS) -> Path:
    """The folder of the demo's decomposition run.

    Args:
        seed: Seed of the decomposition; 0 is the demo's run, the others show whether a result depends on the seed.
        assets: Folder of all assets: the package's, or where they were built.
    """
    return assets / "runs" / f"demo-s-litdemo{seed}"
