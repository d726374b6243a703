"""The page of a result of 10 GB; `benchmarks/view.py` measures how long answers take."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import anonymous_bytes
from benchmarks.view import QUESTIONS, ask, serving, write_tokenizer
from tests.view.browser import Keys, chromium

pytestmark = [pytest.mark.slow, pytest.mark.browser]
ROOT = Path(__file__).parents[2]
# Fewer token ids and a narrower stream than the benchmark's: the index of its 10 GB takes twice as long, for products.
N_COMPONENTS, N_BLOCKS, VOCAB, D_MODEL = 3100, 4, 12000, 128
MOST_BYTES = 500e6
MAKE = """
import sys
from pathlib import Path
from benchmarks.large_storage import write_large_storage
from lit_attr.query.index_build import build_index
assert write_large_storage(Path(sys.argv[1]), *map(int, sys.argv[2:])) > 10e9
build_index(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The process of `lit-attr view`, and its address."""
    folder = tmp_path_factory.mktemp("large")
    file = folder / "dataset_attributions.pt"
    shape = map(str, (N_COMPONENTS, N_BLOCKS, VOCAB, D_MODEL))
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count()), "PYTHONPATH": str(ROOT)}
    try:
        subprocess.run([sys.executable, "-c", MAKE, str(file), *shape], env=environment, check=True)
        with serving(file, write_tokenizer(folder / "tokenizer.json", VOCAB)) as found:
            yield found
    finally:
        shutil.rmtree(folder)


def test_every_question_is_answered_in_little_memory(server):
    process, address = server
    for asked in QUESTIONS.values():
        _, answer = ask(address, *asked, 1)
        assert not answer.get("slow")
        assert answer
    assert anonymous_bytes(process) < MOST_BYTES


def test_a_person_walks(server, tmp_path):
    process, address = server
    with chromium(tmp_path) as tab:
        tab.open(address)
        assert len(tab.all(".heat button")) > 60
        tab.click(".heat button")
        tab.until(lambda: tab.all(".pair table"))
        tab.search("bada", Keys.ARROW_DOWN, Keys.ENTER)
        assert tab.key.startswith("output:")
        tab.choose("neighbours", "components")
        for _ in range(3):
            before = tab.key
            tab.click(".drawing .node:not(.current):not(.walked)")
            tab.until(lambda before=before: tab.key != before)
        assert len(tab.walk) == 4
        tab.choose("metric", "attr_abs")
        tab.choose("sign", "negative")
        seen = tab.key, tab.walk, tab.nodes
        tab.open(tab.driver.current_url)
        assert (tab.key, tab.walk, tab.nodes) == seen
        tab.open(f"{address}#key=0.attn.q:99999")
        assert f"0.attn.q has {N_COMPONENTS} components" in tab.text(".notice.error")
    assert anonymous_bytes(process) < MOST_BYTES
