"""Adding what an engine has computed to some rows and columns of a table of sums."""

from jaxtyping import Float, Int
from torch import Tensor


def add_at_(
    table: Float[Tensor, "_source _target"],
    sources: Int[Tensor, " source"] | None,
    targets: slice | Int[Tensor, " target"],
    values: Float[Tensor, "source target"],
) -> None:
    """Add values in place.

    Args:
        table: Sums of a whole edge block.
        sources: Rows that are added to; None for all.
        targets: Columns that are added to.
        values: In any floating-point type.
    """
    if isinstance(targets, slice):
        into = table[:, targets]
        if sources is None:
            into.add_(values)
        else:
            into.index_add_(0, sources, values.to(table.dtype))
    elif sources is None:
        table.index_add_(1, targets, values.to(table.dtype))
    else:
        table[sources[:, None], targets] += values.to(table.dtype)
