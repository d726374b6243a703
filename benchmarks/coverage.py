"""How often intervals hold the value of a much larger harvest of other batches; see docs/numerics.md.

    python benchmarks/coverage.py [--run RUN --tokens FILE.npy] [--sets 16 --batches 64 --rows 16] [--out FILE]

The data, in random order, is cut into sets of batches, and each set is harvested by itself, every batch a group. The
interval of a set should hold, in 95 of 100 cases, what all other sets together give; that has an error of its own, for
which standard errors are widened. A null is made by giving the attributions of each source in each batch a random sign:
every edge is zero then but for chance, and 5 of 100 intervals should leave zero out.

Edges are weighed alike. Those of one source go together, so that the error of a share is that of sources drawn anew.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from lit_attr.attribution.batch import add_batch_, read_vectors
from lit_attr.attribution.connectivity import trace_topology
from lit_attr.attribution.engine_choice import build_engine, choose_engines
from lit_attr.decomposition.load import load_run
from lit_attr.harvest.accumulator import AttributionSums
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.storage.edge_errors import FEW, EdgeErrors
from lit_attr.storage.interval import half_width
from lit_attr.storage.summed_blocks import SummedBlocks
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.choice import Measure
from lit_attr.topology.layout import Layout
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import METRICS

BANDS = (FEW, 6, 12, 25, 50, np.inf)
# Share of what may be moved by rounding alone, relative to the largest value of a pair of layers.
_NOTHING = 1e-6
_SHOWN_TOKENS = 40


class Harvests:
    """Harvests of sets of batches of a run.

    Args:
        reference: The run.
        data: Its data, open.
    """

    def __init__(self, reference: str, data: TokenDataModule) -> None:
        self.model = load_run(reference).model
        self.topology = trace_topology(self.model)
        alive = {layer: torch.ones(n, dtype=torch.bool) for layer, n in self.topology.n_components.items()}
        self.layout = Layout.of(self.topology, alive, "both", torch.float32)
        self.read = read_vectors(self.model, self.topology, alive)
        self.engine = build_engine(
            choose_engines("auto", self.model, self.topology), self.model, self.layout, 16, 1 << 28
        )
        self.data = data

    def of_batches(self, ids: range, generator: torch.Generator | None = None) -> Sums:
        """The sums of some batches; with random signs by source and batch where a generator is given."""
        metric = AttributionSums(updates_per_flush=1)
        vectors = {layer: self.read.of_targets(layer) for layer in self.layout.squares}
        metric.allocate(self.layout, torch.float32, "cpu", vectors)
        # Every source has a row, so that all harvests have the same places.
        metric.totals.rows({layer: np.arange(live.n_all) for layer, live in metric.totals.live.items()})
        for number in ids:
            metric.update(lambda sums, number=number: self._add(sums, number, generator))
        return metric.totals

    def _add(self, sums: Sums, number: int, generator: torch.Generator | None) -> None:
        with torch.no_grad():
            add_batch_(sums, self.model, self.topology, self.engine, self.data.batch(number), number)
        if generator is not None:
            for _, table in sums.edges():
                signs = torch.randint(0, 2, (len(table.numbers), 1), generator=generator) * 2 - 1
                table.numbers.mul_(signs)

    def blocks(self, sums: Sums) -> SummedBlocks:
        """What a result of some sums answers."""
        return SummedBlocks({"all": sums}, self.read, self.model.unembedding, 0.0, {})


class Tally:
    """Counts of edges by what is counted, band, and source."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)

    def add(self, name: str, n_groups: torch.Tensor, hits: torch.Tensor, valid: torch.Tensor) -> None:
        """Count edges, target by source, with the groups of their sources."""
        for band in range(len(BANDS) - 1):
            for column in ((n_groups >= BANDS[band]) & (n_groups < BANDS[band + 1])).nonzero()[:, 0].tolist():
                if n := int(valid[:, column].sum()):
                    self._counts[name, band].append((float((hits & valid)[:, column].sum()), n))

    def table(self) -> dict[str, dict[str, dict[str, float]]]:
        """Name to band to the share, its error, and the number of edges."""
        rows: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
        for (name, band), counted in sorted(self._counts.items()):
            hits, edges = np.array(counted).T
            share = hits.sum() / edges.sum()
            error = np.sqrt(((hits - share * edges) ** 2).sum()) / edges.sum()
            title = f"{BANDS[band]:g} to {BANDS[band + 1]:g}"
            rows[name][title] = {"share": round(share, 4), "error": round(error, 4), "n": int(edges.sum())}
        return rows


def _pairs(blocks: SummedBlocks) -> Iterator[tuple[str, str, str, Measure]]:
    """Kind of edges, source, target, and metric, as raw sums."""
    for metric in METRICS:
        for target in [*blocks.content.regular_attr, OUTPUT]:
            for source in blocks.source_layers(target, metric):
                ends = f"{'token' if source == EMBED else 'component'} to "
                kind = ends + (f"{'token' if target == OUTPUT else 'component'} {metric}")
                yield kind, source, target, Measure(metric, normalized=False)


def cover(tally: Tally, found: SummedBlocks, rest: SummedBlocks, larger: float) -> None:
    """Count which intervals of a harvest hold the values of another.

    Args:
        tally: Where they are counted.
        found: The harvest.
        rest: The other, of other batches.
        larger: What standard errors are multiplied with for the error of the other.
    """
    errors = EdgeErrors.of(found)
    assert errors is not None
    n_tokens = found.content.n_tokens_processed / rest.content.n_tokens_processed
    for kind, source, target, raw in _pairs(found):
        targets = slice(0, _SHOWN_TOKENS) if target == OUTPUT else slice(None)
        value, truth = (blocks.tile(source, target, raw, targets=targets) for blocks in (found, rest))
        n_groups = errors.n_groups(source, target, raw.metric)
        valid = value.abs() > _NOTHING * value.abs().max()
        of_source = [blocks.normalisation.of_sources(source) for blocks in (found, rest)]
        by_target = found.normalisation.of_targets(target)[targets, None]
        shown = Measure(raw.metric)
        for name, measure, expected, scaled in (
            ("raw", raw, truth * n_tokens, value),
            ("normalised", shown, truth / of_source[1] / by_target, value / of_source[0] / by_target),
        ):
            width = half_width(errors.tile(source, target, measure, targets=targets), n_groups) * larger
            tally.add(f"{kind}, {name}", n_groups, (scaled - expected).abs() <= width, valid & width.isfinite())


def zero(tally: Tally, found: SummedBlocks) -> None:
    """Count which intervals leave zero out, where there is nothing but chance."""
    errors = EdgeErrors.of(found)
    assert errors is not None
    for kind, source, target, raw in _pairs(found):
        targets = slice(0, _SHOWN_TOKENS) if target == OUTPUT else slice(None)
        measure = Measure(raw.metric)
        value = found.tile(source, target, measure, targets=targets)
        n_groups = errors.n_groups(source, target, raw.metric)
        width = half_width(errors.tile(source, target, measure, targets=targets), n_groups)
        tally.add(f"{kind}, null", n_groups, value.abs() > width, (value != 0) & width.isfinite())


def measure(reference: str, tokens: str, n_sets: int, n_batches: int, n_rows: int, n_null: int) -> dict[str, Any]:
    """All shares of a run, by kind of edges and band of groups."""
    data = TokenDataModule(tokens, batch_size=n_rows, n_batches=n_sets * n_batches)
    data.setup("predict")
    harvests, tally = Harvests(reference, data), Tally()
    sets = [range(i * n_batches, (i + 1) * n_batches) for i in range(n_sets)]
    sums = [harvests.of_batches(ids) for ids in sets]
    for number, one in enumerate(sums):
        rest = harvests.of_batches(range(0))
        for other in (*sums[:number], *sums[number + 1 :]):
            rest.add_(other)
        cover(tally, harvests.blocks(one), harvests.blocks(rest), (1 + 1 / (n_sets - 1)) ** 0.5)
    generator = torch.Generator().manual_seed(0)
    for ids in sets[:n_null]:
        zero(tally, harvests.blocks(harvests.of_batches(ids, generator)))
    settings = {"run": reference, "n_sets": n_sets, "n_batches": n_batches, "n_rows": n_rows, "n_null": n_null}
    return {"settings": settings, "shares": tally.table()}


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="demo")
    parser.add_argument("--tokens", default="demo")
    parser.add_argument("--sets", type=int, default=16)
    parser.add_argument("--batches", type=int, default=32)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--null", type=int, default=4, help="sets that are harvested again for the null")
    parser.add_argument("--out", type=Path, help="a JSON file")
    given = parser.parse_args()
    found = measure(given.run, given.tokens, given.sets, given.batches, given.rows, given.null)
    for name, by_band in found["shares"].items():
        for band, figures in by_band.items():
            print(f"{name:45} {band:>10} groups: {figures['share']:.3f} +- {figures['error']:.3f} of {figures['n']:,}")
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
