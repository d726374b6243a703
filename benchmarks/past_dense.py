"""A harvest past the dense wall, really run: killed, continued, verified, indexed, asked and viewed, all compact.

The model has the shape of Qwen3-0.6B, 200,704 singular components in 196 matrices, and random weights whose singular
values fall as those of trained models do, so that few components matter. In the original's format its result has more
than 150 GB.

    python benchmarks/past_dense.py FOLDER --out FILE.json
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import torch
from torch import Tensor

from lit_attr.parts.ledger import read_ledger
from lit_attr.query.explorer import Explorer
from lit_attr.storage.compact import Moved, moved_edges
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.topology.words import COMPACT_FILE, PARTS_FOLDER

_GB = 1e9
_DECAY = 0.8  # singular values fall as i^-0.8


def write_model(folder: Path, shape: Mapping[str, int]) -> None:
    """Write a Hugging Face folder with random weights.

    Args:
        folder: A new folder.
        shape: Entries of the configuration.
    """
    import safetensors.torch
    import transformers

    config = transformers.Qwen3Config(**shape, tie_word_embeddings=True, architectures=["Qwen3ForCausalLM"])
    with torch.device("meta"):
        model = transformers.Qwen3ForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    tensors = {name: _weight(name, t.shape, generator) for name, t in model.named_parameters() if "lm_head" not in name}
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if len(shape) == 1:
        return torch.ones(shape)
    if "embed" in name:
        return torch.randn(shape, generator=generator) * 0.1
    rank = min(shape)
    values = torch.arange(1, rank + 1).pow(-_DECAY)
    values /= values.norm()
    write, read = torch.randn(shape[0], rank, generator=generator), torch.randn(rank, shape[1], generator=generator)
    return (write * values) @ read / (shape[0] * shape[1]) ** 0.25


def write_tokens(path: Path, n_rows: int, seq_len: int, vocab: int) -> None:
    """Write rows of token ids of which few are frequent, as in text."""
    ranks = np.minimum(np.random.default_rng(0).zipf(1.3, (n_rows, seq_len)), vocab) - 1
    np.save(path, ranks.astype(np.int32))


class _Commands:
    """Commands of `lit-attr`, timed, with the peak of their memory."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, float]] = {}

    def run(self, name: str, words: Sequence[object], *, kill_at: Path | None = None) -> str:
        """Run a command to its end, or until a part holds two batches."""
        began, peak = time.monotonic(), 0
        command = [sys.executable, "-m", "lit_attr", *map(str, words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while process.poll() is None:
            peak = max(peak, _peak_bytes(process.pid))
            if kill_at is not None and any(read_ledger(part).n_batches >= 2 for part in kill_at.glob(f"*/*/{_PARTS}")):
                process.send_signal(signal.SIGKILL)
            time.sleep(0.2)
        output = process.stdout.read() if process.stdout else ""
        if process.returncode != (0 if kill_at is None else -signal.SIGKILL):
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {output}")
        self.figures[name] = {"seconds": round(time.monotonic() - began, 2), "peak_gb": round(peak / _GB, 3)}
        print(name, self.figures[name], flush=True)
        return output


_PARTS = f"{PARTS_FOLDER}/dataset_attributions_rank_*.pt"


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def measure(folder: Path, shape: Mapping[str, int], data: Mapping[str, int], threshold: float) -> dict[str, Any]:
    """Run everything.

    Args:
        folder: Where model, tokens and harvest are; what is there of model and tokens is used again.
        shape: Entries of the model's configuration.
        data: `seq_len`, `batch_size` and `n_batches`.
        threshold: Threshold of the decomposition by singular values.
    """
    model, tokens, out = folder / "model", folder / "tokens.npy", folder / "out"
    if not model.exists():
        write_model(model, shape)
    write_tokens(tokens, data["batch_size"] * data["n_batches"], data["seq_len"], shape["vocab_size"])
    words: list[object] = ["predict", "--config", "configs/svd.yaml", "--model.run", model, "--data.tokens", tokens]
    words += [
        "--model.decomposition.init_args.matrices",
        "null",
        "--writer.out_dir",
        out,
        "--trainer.accelerator",
        "cpu",
    ]
    words += ["--model.decomposition.init_args.threshold", threshold, "--model.alive_batches", data["n_batches"]]
    words += [
        "--data.batch_size",
        data["batch_size"],
        "--writer.commit_batches",
        1,
        "--writer.dense",
        "never",
        "--model.memory_gb",
        6,
    ]
    commands = _Commands()
    commands.run("predict, killed after 2 batches", words, kill_at=out / "dataset_attributions")
    commands.run("predict, continued", words)
    path = next((out / "dataset_attributions").glob(f"*/*/{COMPACT_FILE}"))
    commands.run("merge", ["merge", path.parent])
    commands.run("verify", ["verify", path])
    commands.run("index", ["index", path])
    source, target = _an_edge(path)
    for name, key in (("sources", target), ("targets", source)):
        commands.run(f"query {name}", ["query", path, name, key])
    return {
        "commands": commands.figures,
        "queries_ms": _queries(path, source, target),
        "result": _sizes(path),
        "view_seconds": _view(path),
    }


def _an_edge(path: Path) -> tuple[str, str]:
    """The keys of a live source and of a live target that it feeds, in the middle of the model."""
    content = DatasetAttributionStorage.load(path)
    if content.live is None:
        raise SystemExit(f"{path} is not in the compact form")
    layers = [
        layer for layer, by_source in content.regular_attr.items() if by_source and len(content.live.targets[layer])
    ]
    target = layers[len(layers) // 2]
    source = next(layer for layer in content.regular_attr[target] if len(content.live.sources[layer]))
    ends = (source, content.live.sources[source]), (target, content.live.targets[target])
    first, second = (f"{layer}:{int(ids[0])}" for layer, ids in ends)
    return first, second


def _dense_bytes(content: DatasetAttributionStorage) -> int:
    """Size of a result's edges in the original's format."""

    def nbytes(nested: object) -> int:
        if isinstance(nested, Mapping):
            return sum(map(nbytes, nested.values()))
        return 4 * nested.shape.numel() if isinstance(nested, Moved) else 0

    return nbytes(moved_edges(content, None))


def _queries(path: Path, source: str, target: str) -> dict[str, float]:
    explorer = Explorer(path)
    asked = {
        "sources": lambda: explorer.sources(target),
        "targets": lambda: explorer.targets(source),
        "edge": lambda: explorer.edge(source, target),
        "sources of an output token": lambda: explorer.sources("output:0"),
    }
    figures = {}
    for name, ask in asked.items():
        ask()
        began = time.perf_counter()
        for _ in range(5):
            ask()
        figures[name] = round((time.perf_counter() - began) / 5 * 1000, 2)
    return figures


def _sizes(path: Path) -> dict[str, float]:
    content = DatasetAttributionStorage.load(path)
    live = content.live
    n_all = sum(map(len, content.ci_sum.values()))
    if live is None:
        raise SystemExit(f"{path} is not in the compact form")
    return {
        "components": n_all,
        "live_sources": sum(len(ids) for layer, ids in live.sources.items() if layer != "embed"),
        "live_targets": sum(map(len, live.targets.values())),
        "tokens": len(live.sources["embed"]),
        "gb": round(path.stat().st_size / _GB, 3),
        "dense_gb": round(_dense_bytes(content) / _GB, 1),
    }


def _view(path: Path) -> float:
    """Seconds until the page of a result is there."""
    began = time.monotonic()
    command = [sys.executable, "-m", "lit_attr", "view", str(path), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as served:
        lines = iter(served.stdout.readline, "") if served.stdout else iter(())
        address = next(word for line in lines for word in line.split() if word.startswith("http://"))
        with urlopen(address) as page:
            page.read()
        seconds = time.monotonic() - began
        served.send_signal(signal.SIGINT)
    return round(seconds, 2)


def main() -> None:
    """Read the command line, run everything, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    parser.add_argument("--n_layers", type=int, default=28)
    parser.add_argument("--d_model", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--seq_len", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--n_batches", type=int, default=6)
    parser.add_argument("--threshold", type=float, default=0.012)
    options = parser.parse_args()
    shape = {
        **{"vocab_size": options.vocab, "hidden_size": options.d_model, "intermediate_size": 3 * options.d_model},
        **{"num_hidden_layers": options.n_layers, "num_attention_heads": 16, "num_key_value_heads": 8},
        **{"head_dim": options.d_model // 8, "max_position_embeddings": 4096, "bos_token_id": 0, "eos_token_id": 0},
    }
    data = {"seq_len": options.seq_len, "batch_size": options.batch_size, "n_batches": options.n_batches}
    figures = measure(options.folder, shape, data, options.threshold)
    print(json.dumps(figures, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
