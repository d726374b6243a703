"""`lit-attr status`: how far a running harvest is."""

import math
import time
from collections.abc import Sequence
from datetime import timedelta

from lit_attr.cli.arguments import finite, harvest_parser
from lit_attr.cli.find_result import find_harvest

# A worker is called silent after so many minutes without a commit.
_SILENT_MINUTES = 30.0


def run(arguments: Sequence[str]) -> None:
    """Print the state of a harvest across its workers.

    Args:
        arguments: Words of the command line behind `status`.

    Raises:
        RunNotFoundError: If there is no such harvest.
        StorageError: If a file of it is damaged.
    """
    parser = harvest_parser("status", "Show how far a harvest is, from what its workers have committed.")
    parser.add_argument(
        "--silent_minutes",
        type=finite,
        default=_SILENT_MINUTES,
        help="name workers that have not committed for so long (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    folder = find_harvest(options.run, options.out_dir, options.subrun_id)
    from lit_attr.parts.status import status

    state = status(folder)
    merged = "not merged yet"
    if state.n_merged is not None:
        merged = "merged" if state.n_merged == state.n_batches else f"merged when they were {state.n_merged}"
    print(f"{folder}\n  coverage    {state.n_done} of {state.n_batches} batches ({merged})")
    print(f"  workers     {sum(w.n_done == w.n_batches for w in state.workers)} of {len(state.workers)} done")
    if state.n_done < state.n_batches:
        left = state.seconds_left
        eta = str(timedelta(seconds=round(left))) if math.isfinite(left) else "unknown"
        print(f"  speed       {state.tokens_per_second:,.0f} tokens/s\n  time left   {eta}")
    now = time.time()
    for worker in state.workers:
        if (silent := worker.silent_for(now)) > options.silent_minutes * 60:
            since = f"for {timedelta(seconds=round(silent))}"
            print(f"  silent      worker {worker.rank}, {since}: {worker.n_done} of {worker.n_batches} batches")
