"""Adding to rows and columns of a table, in the same order every time on every device."""

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
        sources: Rows that are added to, each once; None for all.
        targets: Columns that are added to, each once.
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


def add_rows_(
    table: Float[Tensor, "row width"], rows: Int[Tensor, " value"], values: Float[Tensor, "value width"]
) -> None:
    """Add values to rows of a table, of which many may go to the same.

    On CUDA `index_add_` adds them in any order, so that results differ in their last bits from run to run; `index_put_`
    sorts them by row first.

    Args:
        table: Changed in place.
        rows: The row that each value is added to.
        values: Values in the floating-point type of the table.
    """
    if table.device.type == "cuda":
        table.index_put_((rows,), values, accumulate=True)
    else:
        table.index_add_(0, rows, values)
