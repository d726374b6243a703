"""The order of rows that a harvest is asked for: random or that of the file, and what is recorded of it."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from lit_attr.data.random_order import MAX_SEED
from lit_attr.data.spec import DatasetSpec
from lit_attr.errors import ConfigurationError

OrderName = Literal["random", "file"]


@dataclass(frozen=True)
class RowOrder:
    """An order of rows, as it is asked for.

    Attributes:
        name: `random`, or `file` for that of the token file or dataset. None for `random`, where the data allows it.
        seed: Which random order; from 0.

    Raises:
        ConfigurationError: If there is no such order or seed, or a seed beside the order of the file.
    """

    name: OrderName | None
    seed: int

    def __post_init__(self) -> None:
        if self.name not in (None, *get_args(OrderName)):
            raise ConfigurationError(f"data.order must be one of {get_args(OrderName)}, found {self.name!r}")
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigurationError(f"data.seed must be 0 to 2^63 - 1, found {self.seed}")
        if self.name == "file" and self.seed:
            raise ConfigurationError(f"data.seed is that of a random order, and data.order is 'file': drop {self.seed}")

    def seed_for(self, dataset: DatasetSpec | None) -> int | None:
        """The seed of the random order of some data; None for the order of the file.

        Args:
            dataset: The dataset; None for a token file.

        Raises:
            ConfigurationError: If a random order is asked for of a dataset that is streamed.
        """
        if dataset is None or not dataset.streaming:
            return None if self.name == "file" else self.seed
        if self.name == "random" or self.seed:
            raise ConfigurationError(
                f"a random order needs all rows, and the dataset {dataset.dataset_name!r} is streamed: drop data.order "
                "and data.seed, or give --data.dataset.streaming false"
            )
        return None


def order_entries(seed: int | None, n_rows: int) -> dict[str, Any]:
    """What plans and results record of an order: its name and, if it is random, its seed and of how many rows it is.

    Args:
        seed: Seed of the random order; None for the order of the file.
        n_rows: Number of all rows of the data.
    """
    if seed is None:
        return {"order": "file"}
    return {"order": "random", "order_seed": seed, "order_rows": n_rows}
