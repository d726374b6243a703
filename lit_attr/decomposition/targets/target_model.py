"""Target models: what the package asks of any, and those whose shape a configuration gives."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_attr.decomposition.anatomy import Anatomy
from lit_attr.errors import DataError


@dataclass(frozen=True)
class TargetConfig:
    """The entries of `model_config.yaml` that every target model has.

    Attributes:
        block_size: Longest sequence.
        vocab_size: Number of token ids.
        n_layer: Number of blocks.
        n_head: Number of attention heads of a block.
        n_embd: Width of the residual stream.
        flash_attention: Setting of the training code, which does not change what is computed.
    """

    block_size: int = 1024
    vocab_size: int = 50257
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    flash_attention: bool = True


class TargetModel(nn.Module, ABC):
    """A language model, from token ids to logits."""

    @property
    @abstractmethod
    def n_token_ids(self) -> int:
        """Number of token ids."""

    @property
    @abstractmethod
    def block_size(self) -> int:
        """Longest sequence."""

    @abstractmethod
    def forward(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        """Logits of the next token.

        Raises:
            DataError: If a sequence is longer than the context.
        """

    @abstractmethod
    def anatomy(self) -> Anatomy | None:
        """The model's anatomy: what lies between its matrices; None if that is not known."""

    def check_context(self, tokens: Int[Tensor, "batch seq"]) -> None:
        """Refuse sequences that are longer than the model's context.

        Raises:
            DataError: If they are.
        """
        if tokens.shape[-1] > self.block_size:
            raise DataError(
                f"sequences of {tokens.shape[-1]} tokens are longer than the model's context of {self.block_size}"
            )


class ConfiguredTarget(TargetModel):
    """A target model whose class is in this package.

    Args:
        config: Shape of the model.
    """

    def __init__(self, config: TargetConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def n_token_ids(self) -> int:
        """Number of token ids."""
        return self.config.vocab_size

    @property
    def block_size(self) -> int:
        """Longest sequence."""
        return self.config.block_size
