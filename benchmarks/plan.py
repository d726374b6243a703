"""What `lit-attr plan` says of time, against a harvest on the same machine.

    python benchmarks/plan.py [--run demo ss-2l] [--tokens TOKENS.npy] [--n_tokens 131072] [--threads 1]

Each run is harvested twice as benchmarks/end_to_end.py does, over few tokens and over many, so that start-up cancels,
and planned with the same settings, the density of its causal importances measured on the first tokens. The plan should
be within a factor of 3.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.end_to_end import data, predict
from lit_attr.assets import DEMO
from lit_attr.attribution.engine_choice import choose_engines
from lit_attr.decomposition.load import load_run
from lit_attr.harvest.memory import keep_freed_memory
from lit_attr.harvest.needs import Live
from lit_attr.harvest.shape import Shape
from lit_attr.harvest.sources import ModelSource
from lit_attr.planning.flops import Density, work_per_token
from lit_attr.planning.speeds import measured_speed

_FEW = 4096
_BATCH = 32


def planned_seconds(run: str, tokens: torch.Tensor) -> tuple[float, float]:
    """Seconds of a token by the plan, and the density of causal importances that it is told.

    Args:
        run: The run.
        tokens: Some sequences of its data.
    """
    ci = load_run(run).model.causal_importance(tokens)
    density = sum(int((values != 0).sum()) for values in ci.values()) / sum(values.numel() for values in ci.values())
    shape = Shape.of(ModelSource(run, None, None))
    choice = choose_engines("auto", shape.model, shape.topology)
    of_batch = Density(density, tokens.shape[1], _BATCH)
    work = work_per_token(shape, choice, Live.all(shape.topology), of_batch)
    return sum(measured_speed().seconds(work, 1.0)), density


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", default=[DEMO, "ss-2l"], help="runs on disk, or shapes")
    parser.add_argument("--tokens", type=Path, help="token file of the runs on disk")
    parser.add_argument("--n_tokens", type=int, default=1 << 17)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as the harvest does
    for name in arguments.run:
        with tempfile.TemporaryDirectory() as folder:
            run, rows = data(name, arguments.tokens, arguments.n_tokens, Path(folder))
            seconds = []
            for size in (_FEW, arguments.n_tokens):
                taken = rows[: -(-size // rows.shape[1])]
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    measured = predict(name, run, taken, arguments.threads, Path(place))
                seconds.append((measured.cpu_seconds, taken.size))
            found = (seconds[1][0] - seconds[0][0]) / (seconds[1][1] - seconds[0][1])
            planned, density = planned_seconds(run, torch.from_numpy(rows[:8].astype("int64")))
            line = {"run": name, "ci_density": density, "harvest_us": found * 1e6, "plan_us": planned * 1e6}
            print(json.dumps({**line, "plan_over_harvest": planned / found}), flush=True)


if __name__ == "__main__":
    main()
