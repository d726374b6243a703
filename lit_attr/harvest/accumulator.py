"""The distributed accumulator of a harvest."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed
from torchmetrics import Metric

from lit_attr.errors import ConfigurationError, NumericalError, few
from lit_attr.harvest.memory import free_bytes
from lit_attr.harvest.needs import WAYS_OUT
from lit_attr.topology.layout import Layout
from lit_attr.topology.squares import N_BLOCKS
from lit_attr.topology.sums import CHUNK, Sums, add_chunked_, row_counts

# A float32 sum of n numbers is off by at most n * 2^-24 of the sum of their magnitudes, a float64 sum by n * 2^-53.
# With 32 updates between flushes the first is 2e-6 and the second negligible for any number of batches.
_UPDATES_PER_FLUSH = 32
# So many groups a harvest has where it has so many batches: their spread is then known to 9 %.
_GROUPS = 64


def updates_per_group(n_batches: int) -> int:
    """How many updates make a group, of which each costs a pass over all sums.

    Args:
        n_batches: Batches of the harvest, those of all workers.
    """
    return min(max(n_batches // _GROUPS, 1), _UPDATES_PER_FLUSH)


class AttributionSums(Metric):
    """Raw sums over tokens; summed over processes they give the token-weighted mean.

    Updates go in place into `recent`, on the device and in the engine's precision. Every few updates `recent` is added
    to the totals, which are the metric's states: float64, on the host, reduced over processes by summation. The error
    is below 1e-5 of the sum of absolute contributions for any number of updates. On a CPU the tables of attributions,
    by far the largest, are those of the totals themselves, so that there is no copy of them.

    Where the layout has squares, what was updated between two flushes is a group; see `Squares`. Groups then need
    tables of their own, on a CPU too.

    Nothing here enters a checkpoint or a module's buffers: Lightning broadcasts rank 0's buffers and would overwrite
    the other ranks' sums.

    Args:
        updates_per_flush: Updates between two additions of `recent` to the totals.

    Example:
        >>> import numpy as np
        >>> from lit_attr.topology.graph import Topology
        >>> sources = {"0.mlp.up": ("embed",), "output": ("embed",)}
        >>> inputs = {"0.mlp.up": "0.mlp.up", "output": "output"}
        >>> topology = Topology({"0.mlp.up": 1}, sources, 2, 1, inputs, widths={"0.mlp.up": 1, "output": 1})
        >>> metric = AttributionSums()
        >>> metric.allocate(Layout.of(topology, {"0.mlp.up": torch.tensor([True])}, "both"), torch.float32, "cpu")
        >>> def contribute(sums):
        ...     sums.rows({"embed": np.array([1, 0])})  # token 1 gets the first row
        ...     sums.attr["0.mlp.up"]["embed"].numbers[0] += 3.0
        ...     sums.n_tokens.add_(2)
        >>> metric.update(contribute)
        >>> metric.compute()["attr/embed->0.mlp.up"]
        tensor([[1.5000],
                [0.0000]], dtype=torch.float64)
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    recent: Sums
    totals: Sums

    def __init__(self, updates_per_flush: int = _UPDATES_PER_FLUSH) -> None:
        super().__init__(compute_with_cache=False)
        self.updates_per_flush = updates_per_flush
        self._updates_since_flush = 0

    def allocate(
        self,
        layout: Layout,
        dtype: torch.dtype,
        device: torch.device | str,
        read: Mapping[str, Float[Tensor, "_width _target"]] | None = None,
        first_block: int = 0,
    ) -> None:
        """Allocate all sums, zero, on every process, whether it will see a batch or not.

        Args:
            layout: Decides names and shapes.
            dtype: In which the engine computes.
            device: On which the engine computes.
            read: Target layer to the read vectors of its targets, where the layout has squares.
            first_block: The block of the first group; processes differ in it, so that few groups fill all blocks.
        """
        self._read = {layer: vectors.to(device, dtype) for layer, vectors in (read or {}).items()}
        self._first_block = first_block
        self._is_synced = False
        self._updates_since_flush = 0
        self._new_sums = partial(Sums.zeros, layout, dtype, with_squares=False)
        self.totals = Sums.zeros(layout, torch.float64)
        self.recent = self._new_recent(torch.device(device))
        for name, tensor in self.totals.named():
            # The registered default stays 0-d: torchmetrics keeps a copy of it.
            self.add_state(name, torch.zeros((), dtype=tensor.dtype), dist_reduce_fx="sum")
        self._show_states()

    def _new_recent(self, device: torch.device) -> Sums:
        recent = self._new_sums(device=device, live=self.totals.live)
        if device.type != "cpu" or self.totals.squares is not None:  # which need the sums of a group by themselves
            return recent
        return replace(recent, attr=self.totals.attr, attr_abs=self.totals.attr_abs)

    def _show_states(self) -> None:
        """Let the metric's states be the totals, whose tables are other tensors after they have grown."""
        for name, tensor in self.totals.named():
            setattr(self, name, tensor)

    def trial(self) -> Sums:
        """Sums of which nothing is kept, for a trial before the first update."""
        return self._new_sums(device=self.recent.logit_sq.device)

    @property
    def nbytes(self) -> int:
        """Size of the totals and of what waits to be added to them, in bytes."""
        return self.totals.nbytes + sum(new.nbytes for _, new in self._waiting())

    def _waiting(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Totals, and what is to be added to them."""
        for (_, total), (_, new) in zip(self.totals.edges(), self.recent.edges(), strict=True):
            if new is not total:
                yield total.numbers, new.numbers
        # Those of squares come last, and only the totals have them.
        for (_, sums), (_, more) in zip(self.totals.normalisers(), self.recent.normalisers(), strict=False):
            yield sums, more

    def update(self, contribute: Callable[[Sums], None]) -> None:
        """Let one batch, or a part of it, add itself.

        Args:
            contribute: Adds to the sums that it is given, in place.

        Raises:
            ConfigurationError: If the sums were reduced over processes before, or memory will not hold them for long.
        """
        if self._is_synced:
            raise ConfigurationError(
                "cannot update AttributionSums: they were already reduced over all processes, so that this process' "
                "own sums no longer exist; call reset() to begin anew"
            )
        n_rows = self.totals.n_rows
        with torch.enable_grad():  # torchmetrics disables it, and some engines take gradients
            contribute(self.recent)
        if self.totals.n_rows > n_rows:
            self._show_states()
            self._check_room(n_rows)
        self._updates_since_flush += 1
        if self._updates_since_flush >= self.updates_per_flush:
            self.flush()

    def _check_room(self, n_before: int) -> None:
        """Stop before the system stops this process: what is committed can be continued, elsewhere or with shards.

        The next batches bring fewer new sources than the last one has; rows of all layers are taken to be alike.

        Args:
            n_before: How many sources had a row before the last update.
        """
        growth = self.nbytes * (1 - n_before / self.totals.n_rows)
        for device in {torch.device("cpu"), self.recent.logit_sq.device}:
            if (free := free_bytes(device)) < growth / 2:
                size, more, left = (nbytes / 1e9 for nbytes in (self.nbytes, growth, free))
                raise ConfigurationError(
                    f"the sums of {self.totals.n_rows} live sources take {size:.3g} GB, {more:.3g} GB more than one "
                    f"update before, and {left:.3g} GB are free on {device}; {WAYS_OUT}"
                )

    def add(self, sums: Sums) -> None:
        """Add what was summed before.

        Args:
            sums: Sums of the same layout.
        """
        self.totals.add_(sums)
        self._show_states()

    def forward(self, contribute: Callable[[Sums], None]) -> None:
        """Update, and give no value of a single batch: torchmetrics would compute one from copies of all sums."""
        self.update(contribute)

    def flush(self) -> None:
        """Add the recent updates to the totals, in bounded memory.

        Raises:
            NumericalError: If they are not finite.
        """
        if self._updates_since_flush:
            self._check_finite()
            if (squares := self.totals.squares) is not None:
                squares.add_group_(self.recent, self._read, (self._first_block + int(squares.n_groups)) % N_BLOCKS)
            for total, new in self._waiting():
                add_chunked_(total, new)
                new.zero_()
            self._updates_since_flush = 0

    def _check_finite(self) -> None:
        """One value for each tensor, and one look at all of them: a device is asked only once."""
        named = [(name, tensor) for name, tensor in self.recent.named() if tensor.is_floating_point()]
        finite = torch.stack([tensor.sum() for _, tensor in named]).isfinite().tolist()
        if not all(finite):
            bad = [name for (name, _), fine in zip(named, finite, strict=True) if not fine]
            raise NumericalError(
                f"sums are no longer finite after the last {self._updates_since_flush} updates "
                f"({few(bad)}): is the model's output finite here?"
            )

    def compute(self) -> dict[str, Float[Tensor, "..."]]:
        """The token-weighted mean per edge and normaliser, over all processes: name to sum over number of tokens.

        Those of `attr` are in read space, see `Sums`; those of `attr_abs` are over the tokens that were summed.
        """
        self.flush()
        totals = self.totals

        def n_tokens(name: str) -> Tensor:
            return (totals.n_abs_tokens if name.startswith("attr_abs/") else totals.n_tokens).clamp(min=1)

        return {name: total / n_tokens(name) for name, total in replace(totals, squares=None).named()}

    def sync(
        self,
        dist_sync_fn: Callable | None = None,
        process_group: Any | None = None,  # noqa: ANN401 - torchmetrics' own signature
        should_sync: bool = True,  # noqa: FBT001, FBT002 - torchmetrics' own
        distributed_available: Callable | None = None,
    ) -> None:
        """Sum the totals over all processes, in place and in chunks; afterwards every process holds the global sums.

        The process' own sums are gone then, and updates are refused until `reset`. Arguments are those of torchmetrics;
        `dist_sync_fn` is not used.
        """
        self.flush()
        available = distributed_available or self.distributed_available_fn
        if not should_sync or self._is_synced or not available():
            return
        group = process_group or self.process_group
        device = self.device if distributed.get_backend(group) == "nccl" else torch.device("cpu")
        for (_, table), (_, total) in zip(self.recent.edges(), self.totals.edges(), strict=True):
            if table is not total:  # zero after the flush
                table.forget()
        self.totals.sort_rows(self._rows_of_all(group, device))
        self._show_states()
        for _, tensor in self.totals.named():
            for chunk in tensor.view(-1).split(CHUNK):
                moved = chunk.to(device)
                distributed.all_reduce(moved, group=group)
                if moved is not chunk:
                    chunk.copy_(moved)
        self._is_synced = True

    def _rows_of_all(
        self,
        group: Any | None,  # noqa: ANN401 - as in `sync`
        device: torch.device,
    ) -> dict[str, Int[np.ndarray, " _live"]]:
        """Source layer to the sources that have a row in any process, ascending."""
        rows = {}
        for layer, n_all in row_counts(self.totals.layout).items():
            is_live = torch.zeros(n_all, dtype=torch.uint8)
            is_live[torch.from_numpy(self.totals.live[layer].ids)] = 1
            everywhere = is_live.to(device)
            distributed.all_reduce(everywhere, op=distributed.ReduceOp.MAX, group=group)
            rows[layer] = np.flatnonzero(everywhere.cpu().numpy())
        return rows

    def unsync(self, should_unsync: bool = True) -> None:  # noqa: FBT001, FBT002 - torchmetrics' own
        """Nothing: a copy of the local sums, which torchmetrics would restore here, would double the memory."""

    def merge_state(self, incoming_state: "dict[str, Any] | Metric") -> None:
        """Add the sums of another metric of the same topology.

        Raises:
            ConfigurationError: If it is something else, or either was reduced over processes.
        """
        if not isinstance(incoming_state, AttributionSums):
            raise ConfigurationError(f"expected AttributionSums, found {type(incoming_state).__name__}")
        if self._is_synced or incoming_state._is_synced:
            raise ConfigurationError("cannot merge sums that were already reduced over all processes")
        widths = [_widths(metric.totals) for metric in (self, incoming_state)]
        if widths[0] != widths[1]:
            raise ConfigurationError(f"cannot merge sums of another topology: expected {widths[0]}, found {widths[1]}")
        incoming_state.flush()
        self.add(incoming_state.totals)

    def reset(self) -> None:
        """Forget everything, and allow updates again."""
        for live in self.totals.live.values():
            live.clear()
        for sums in (self.recent, self.totals):
            sums.forget()
        self._show_states()
        self._updates_since_flush = 0
        self._update_count = 0
        self._is_synced = False

    def _apply(self, fn: Callable, exclude_state: Sequence[str] = "") -> "AttributionSums":
        """Follow the module to its device with `recent`; the totals stay on the host and keep their precision."""
        super()._apply(fn, exclude_state=tuple(self._defaults))
        if "recent" in vars(self):
            if self.device.type == self.recent.logit_sq.device.type:
                self.recent = self.recent.to(self.device)
            else:
                self.flush()
                self.recent = self._new_recent(self.device)
            self._read = {layer: vectors.to(self.device) for layer, vectors in self._read.items()}
        return self


def _widths(sums: Sums) -> dict[str, int]:
    """What the shapes of sums have in common that may be added: names, columns of tables, lengths of vectors."""
    lengths = {name: tensor.numel() for name, tensor in sums.normalisers()}
    return {**{name: table.width for name, table in sums.tables()}, **lengths}
