import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from lit_attr.assets import FIGURES, SEEDS, TOKENIZER, TOKENS, run_folder
from lit_attr.decomposition.load import load_run
from lit_attr.demo.grammar import vocabulary
from tools.demo.build import Recipe, build
from tools.demo.decompose import DecompositionTraining
from tools.demo.target import TargetTraining

pytestmark = pytest.mark.slow


def test_a_few_steps_of_everything_make_files_that_load(tmp_path):
    recipe = Recipe(
        target=TargetTraining(steps=3, batch_size=4),
        decomposition=DecompositionTraining(steps=3, batch_size=4, faithfulness_steps=2),
        n_stories=300,
        n_shipped=1088,
        n_embd=16,
        n_layer=1,
    )
    build(tmp_path, recipe)
    tokens = np.load(tmp_path / TOKENS)
    assert tokens.shape == (1088, 32)
    assert Tokenizer.from_file(str(tmp_path / TOKENIZER)).get_vocab_size() == len(vocabulary()) > tokens.max()
    figures = json.loads((tmp_path / FIGURES).read_text())
    runs = [load_run(run_folder(seed, tmp_path)) for seed in SEEDS]
    assert [run.run_id for run in runs] == [f"s-litdemo{seed}" for seed in SEEDS]
    assert len({run.weights_digest for run in runs}) == len(SEEDS)
    assert set(figures["runs"]) == {str(seed) for seed in SEEDS}
    assert "| seed | 0 | 1 | 2 |" in (tmp_path / "README.md").read_text()
