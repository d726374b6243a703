"""What one worker of a grid (data x target shards) needs of memory."""

from dataclasses import dataclass
from math import ceil

import torch

from lit_attr.attribution.closed_form.sizes import Widths, least_workspace
from lit_attr.attribution.engine_choice import EngineChoice
from lit_attr.decomposition.anatomy import Attention
from lit_attr.harvest.account import batch_bytes
from lit_attr.harvest.needs import Live, Part, SumsBytes, weights_nbytes
from lit_attr.harvest.shape import Shape
from lit_attr.planning.flops import Density
from lit_attr.topology.layout import Layout
from lit_attr.topology.shards import deal

_MOST_ROWS = 256
_STEP = 1 << 26


@dataclass(frozen=True)
class WorkerBytes:
    """Bytes of one worker, whatever the grid, but for its sums.

    Attributes:
        weights: Bytes of the target, the components, and what computes causal importances.
        row: Forwards of one sequence and what they leave behind.
        more_rows: Bytes of each further sequence.
        workspace: Temporaries of the closed forms.
    """

    weights: dict[Part, int]
    row: int
    more_rows: int
    workspace: int

    @classmethod
    def of(
        cls, shape: Shape, choice: EngineChoice, layout: Layout, density: Density, workspace: int, device: torch.device
    ) -> "WorkerBytes":
        """Go through one and two sequences without numbers.

        Args:
            shape: The model without numbers.
            choice: Which engine computes which edge block.
            layout: The sums of the whole harvest.
            density: How much of it is at work in a batch.
            workspace: Bytes for temporaries of the closed forms.
            device: Where a worker computes.
        """
        one, two = (
            batch_bytes(shape.model, choice, layout, n, density.seq_len, density.share, device).forwards for n in (1, 2)
        )
        return cls(weights_nbytes(shape.model), one, two - one, workspace)

    @property
    def certain(self) -> int:
        """Bytes beside the sums, with one sequence at once."""
        return sum(self.weights.values()) + self.row + self.workspace

    def rows_within(self, free: float) -> int:
        """How many sequences fit at once.

        Args:
            free: Bytes for everything but the sums.
        """
        return min(_MOST_ROWS, max(1, 1 + int((free - self.certain) / max(self.more_rows, 1))))


def workspace_needed(shape: Shape, live: Live, density: Density) -> int:
    """The least workspace, in bytes, that holds one sequence and one target; in steps of 2^26 bytes.

    Args:
        shape: The model without numbers.
        live: What has a place in the tables.
        density: How much of it is at work in a batch.
    """
    topology, anatomy = shape.topology, shape.model.anatomy()
    if anatomy is None:
        return 0
    attentions = [sublayer for sublayer in anatomy.sublayers if isinstance(sublayer, Attention)]
    active = [density.active(count, live.sources[layer]) for layer, count in topology.n_components.items()]
    widths = Widths(
        seq_len=density.seq_len,
        n_pairs=ceil(sum(active) * density.seq_len) + density.seq_len,
        n_layer_pairs=ceil(max(active) * density.seq_len) + density.seq_len,
        source=max(density.seq_len, *(live.sources[layer] for layer in topology.n_components)),
        target=max(sum(live.targets.get(t, 0) for t in readers) for readers in topology.readers.values()),
        input=max(topology.widths.values()),
        stream=max([topology.d_model, *(a.n_heads * a.head_width for a in attentions)]),
        heads=max((a.n_heads for a in attentions), default=0),
        itemsize=4,
    )
    return _STEP * ceil(least_workspace(widths) / _STEP)


def largest_shard(layout: Layout, live: Live, device: torch.device, n_shards: int) -> SumsBytes:
    """Bytes of the largest of some target shards, with an engine in float32.

    Args:
        layout: The sums of the whole harvest.
        live: What has a place in the tables.
        device: Where workers compute.
        n_shards: Number of shards.

    Raises:
        ConfigurationError: If there is not enough for so many.
    """
    shards = [SumsBytes.of(shard, live, torch.float32, device) for shard in deal(layout, n_shards)]
    return SumsBytes(max(shard.totals for shard in shards), max(shard.recent for shard in shards))
