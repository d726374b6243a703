"""`lit-attr plan`: what a harvest needs, before anything is loaded."""

import argparse
import json
from collections.abc import Sequence

from lit_attr.cli.arguments import finite
from lit_attr.errors import ConfigurationError
from lit_attr.files.roots import user_path

_DESCRIPTION = (
    "Say what a harvest needs of memory, disk and time, and propose a grid of workers, from configurations alone: no "
    "weights are read. All other options are those of lit-attr predict, such as --config FILE and --model.run RUN. A "
    "run that is not at hand is described by a folder with its final_config.yaml, or by --components."
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lit-attr plan", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--memory_gb", type=finite, help="memory of a device; default: that of --device")
    parser.add_argument("--host_gb", type=finite, help="memory of a host; default: what is free on this one")
    parser.add_argument("--workers", type=int, default=1, help="workers, all on one host (default: %(default)s)")
    parser.add_argument("--device", help="a GPU whose time is estimated, such as H100; default: this processor's")
    parser.add_argument(
        "--peak_share", type=finite, default=0.4, help="share of a GPU's peak that is reached (default: %(default)s)"
    )
    parser.add_argument("--n_tokens", type=finite, help="tokens of the harvest; default: those of the data, or 1e9")
    parser.add_argument("--seq_len", type=int, help="tokens of a sequence; default: those of the data")
    parser.add_argument(
        "--weights",
        choices=("float32", "bfloat16"),
        default="float32",
        help="how matrices were stored: in bfloat16 they are kept as such (default: %(default)s)",
    )
    known = parser.add_mutually_exclusive_group()
    known.add_argument("--alive_share", type=finite, help="share of the components that ever have causal importance")
    known.add_argument("--harvest_db", type=user_path, help="a harvest.db that says which do")
    known.add_argument("--result", help="an earlier result that says which do")
    parser.add_argument("--ci_density", type=finite, help="share of a layer's components that do at a position")
    parser.add_argument(
        "--components",
        nargs="+",
        metavar="N",
        help="components of every matrix of a language model, or PATTERN=N of some: a decomposition not at hand",
    )
    parser.add_argument("--keep", type=int, default=64, help="entries of a row in the strongest alone")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    return parser


def run(arguments: Sequence[str]) -> None:
    """Print a plan.

    Args:
        arguments: Words of the command line behind `plan`.

    Raises:
        LitAttrError: If predict would refuse the configuration, or a number makes no sense.
    """
    options, harvest = _parser().parse_known_args(arguments)
    for name in ("memory_gb", "host_gb", "workers", "peak_share", "n_tokens", "seq_len", "ci_density", "keep"):
        if (value := getattr(options, name)) is not None and value <= 0:
            raise ConfigurationError(f"--{name} must be positive, found {value}")
    # torch is imported only now: help and mistakes answer at once.
    from lit_attr.cli.planned import plan_of
    from lit_attr.planning.report import entries, lines

    plan = plan_of(options, harvest)
    print(json.dumps(entries(plan)) if options.json else "\n".join(lines(plan)))
