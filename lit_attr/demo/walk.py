"""The demo's answer: which names push `her` against `him`, and along which components."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

from lit_attr.demo.grammar import NAMES, vocabulary
from lit_attr.errors import RunNotFoundError, few
from lit_attr.files.roots import DEFAULT_ROOT
from lit_attr.storage.result_folders import run_folder

if TYPE_CHECKING:
    from lit_attr.storage.file_content import Content

_RUN_ID = "s-litdemo0"
_WORD, _OTHER = "her", "him"
_N_CHAINS = 3


def main(args: Sequence[str] | None = None) -> None:
    """Print the walk through the newest result of the demo.

    Args:
        args: Words of the command line; those of the process if None.

    Raises:
        RunNotFoundError: If the demo was not harvested.
        StorageError: If its result is damaged.
    """
    parser = argparse.ArgumentParser(prog="python -m lit_attr.demo.walk", description=__doc__)
    parser.add_argument("--out_dir", help=f"root of results; default: {DEFAULT_ROOT}")
    out_dir = parser.parse_args(args).out_dir
    # torch is imported only now, within `explained`.
    from lit_attr.demo.mechanism import missing_from_chains
    from lit_attr.query.attribution_repo import AttributionRepo
    from lit_attr.query.result_name import ResultName

    repo = AttributionRepo.open(_RUN_ID, out_dir)
    if repo is None:
        raise RunNotFoundError(
            f"no result of the demo in {run_folder(_RUN_ID, out_dir)}; make one with "
            "`lit-attr predict --config configs/demo.yaml`"
        )
    ids = {word: index for index, word in enumerate(vocabulary())}
    console = Console()
    stored = repo.get_attributions()
    with console.capture() as shown:  # rich itself would end with 1 where `head` has seen enough
        console.print(_scores(stored, ids))
        console.print(_strongest(stored, ids))
        console.print(str(ResultName.read(repo.path, stored)), style="table.caption")
        if missing := missing_from_chains(stored):
            console.print(
                f"chains through {few(missing)} are not in the scores: they were no targets of the harvest, so that "
                "what feeds them was not measured",
                style="table.caption",
            )
    print(shown.get(), end="")


def _scores(stored: "Content", ids: dict[str, int]) -> Table:
    """The scores of the names over all chains, as a table."""
    from lit_attr.demo.mechanism import chain_scores

    scores = chain_scores(stored, ids[_WORD], ids[_OTHER])
    table = Table(
        *("female name", "score", "male name", "score"),
        title=f"How names push `{_WORD}` against `{_OTHER}`: all chains output <- attn.o <- attn.v <- name",
        caption="positive: towards her; negative: towards him; relative to an average word",
    )
    for female, male in zip(NAMES["female"], NAMES["male"], strict=True):
        table.add_row(female, f"{scores[ids[female]]:+.2f}", male, f"{scores[ids[male]]:+.2f}")
    return table


def _strongest(stored: "Content", ids: dict[str, int]) -> Table:
    """The chains that tell the genders apart best; the product of a row's numbers is the chain's score of a name."""
    from lit_attr.demo.mechanism import chains

    female, male = ([ids[name] for name in NAMES[gender]] for gender in ("female", "male"))
    telling = [
        (difference, block, o, v, edges)
        for block, edges in chains(stored, ids[_WORD], ids[_OTHER]).items()
        for o, v, difference in edges.most_telling(female, male, _N_CHAINS)
    ]
    telling.sort(key=lambda chain: -chain[0])
    table = Table(
        Column("component", no_wrap=True),
        Column(f"to {_WORD} - {_OTHER}"),
        Column("fed by", no_wrap=True),
        *("edge", "female names", "male names"),
        title="The chains that tell the genders apart best",
        caption="the product of a row's numbers is the chain's score of a name (here of a mean one)",
    )
    for _, block, o, v, edges in telling[:_N_CHAINS]:
        means = [f"{edges.into[v, gender].mean():+.2f}" for gender in (female, male)]
        table.add_row(
            *(f"{block}.attn.o:{o}", f"{edges.out[o]:+.2f}", f"{block}.attn.v:{v}", f"{edges.mid[o, v]:+.2f}", *means)
        )
    return table


def _walk() -> int:
    main()
    return 0


if __name__ == "__main__":
    from lit_attr.cli.main import explained

    sys.exit(explained(_walk))
