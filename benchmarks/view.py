"""How fast the viewer answers from a large result, and in how much memory.

    python benchmarks/query.py --keep FOLDER   # writes one of 10 GB, and its index
    python benchmarks/view.py FOLDER

The result is served in a process of its own, with nothing of its files in the page cache. All questions of the page are
asked, each with three different keys and then with the same keys again. The output is one JSON object: seconds, and the
server's anonymous memory, that of the imports included.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, product
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.processes import anonymous_bytes, forget

_N_KEYS = 3
# The questions of the page; `{n}` is another key each time.
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "a token": ("search", {"text": "ba{n}"}),
    "nothing near": ("search", {"text": "xx{n}xxx"}),
    "overview": ("overview", {}),
    "overview of magnitudes": ("overview", {"metric": "attr_abs", "raw": 1}),
    "edges from tokens to tokens": ("pair", {"source": "embed", "target": "output"}),
    "edges between components": ("pair", {"source": "{n}.attn.o", "target": "3.mlp.up"}),
    **{
        f"{question} of {layer}, {metric}, k {options.get('k')}": (
            question,
            {"key": f"{layer}:{{n}}1", "metric": metric, **options},
        )
        for question, options in (("neighbours", {}), ("subgraph", {"k": 3}), ("subgraph", {"k": 10}))
        for layer in ("output", "embed", "2.mlp.up", "0.attn.o", "3.mlp.down")
        for metric in ("attr", "attr_abs")
    },
    "an edge to a token": ("edge", {"source": "1.attn.o:{n}", "target": "output:{n}77"}),
    "a walk with pins": (
        "subgraph",
        {"key": "output:{n}", "pin": ["2.mlp.up:{n}", "0.attn.v:{n}"], "walk": ["embed:{n}"]},
    ),
}


def write_tokenizer(path: Path, vocab: int) -> Path:
    """Write a tokenizer of made-up words, and return its file."""
    import tokenizers

    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    words = ("".join(parts) for length in (1, 2, 3) for parts in product(syllables, repeat=length))
    ids = {word: index for index, word in enumerate(islice(words, vocab))}
    model = tokenizers.models.WordLevel(ids, unk_token="ba")
    tokenizers.Tokenizer(model).save(str(path))
    return path


@contextmanager
def serving(file: Path, tokenizer: Path) -> Iterator[tuple[int, str]]:
    """Serve a result by `lit-attr view`; gives the id of the process and the page's address."""
    command = [sys.executable, "-m", "lit_attr.cli.main", "view", str(file), "--port", "0"]
    command += ["--tokenizer", str(tokenizer)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the server's output is not read")
            yield process.pid, process.stdout.readline().split(" is shown at ")[1].split()[0]
        finally:
            process.send_signal(signal.SIGINT)


def ask(address: str, question: str, parameters: dict[str, Any], number: int) -> tuple[float, dict[str, Any]]:
    """Ask a question about the keys with this number; gives seconds and the answer."""

    def fill_in(value: Any) -> Any:  # noqa: ANN401 - a parameter, or several
        return [fill_in(one) for one in value] if isinstance(value, list) else str(value).format(n=number)

    query = urlencode({name: fill_in(value) for name, value in parameters.items()}, doseq=True)
    begin = time.perf_counter()
    with urlopen(f"{address}api/{question}?{query}") as response:
        answer = json.load(response)["answer"]
    return time.perf_counter() - begin, answer


def measure(folder: Path) -> dict[str, Any]:
    """Ask every question of the page."""
    from lit_attr.query.explorer import Explorer

    file = folder / "dataset_attributions.pt"
    vocab = len(Explorer(file).storage.embed_token_count)
    tokenizer = write_tokenizer(folder / "tokenizer.json", vocab)
    forget(folder.iterdir())
    figures: dict[str, Any] = {"bytes": file.stat().st_size}
    with serving(file, tokenizer) as (process, address):
        for times in ("first", "again"):
            taken = {
                (name, number): ask(address, *asked, number)[0]
                for number in range(1, _N_KEYS + 1)
                for name, asked in QUESTIONS.items()
            }
            slowest = max(taken, key=taken.__getitem__)
            median = round(statistics.median(taken.values()), 4)
            figures[times] = {"median": median, "slowest": round(taken[slowest], 4), "slowest_question": slowest[0]}
        figures["anonymous_mb"] = round(anonymous_bytes(process) / 1e6)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with a dataset_attributions.pt and its index")
    print(json.dumps(measure(parser.parse_args().folder), indent=2))
