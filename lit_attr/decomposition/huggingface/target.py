"""Language models of `transformers` as target models."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lit_attr.decomposition.anatomy import Anatomy
from lit_attr.decomposition.huggingface.gpt2 import gpt2_anatomy
from lit_attr.decomposition.huggingface.gpt_neox import gpt_neox_anatomy
from lit_attr.decomposition.huggingface.llama import llama_anatomy
from lit_attr.decomposition.targets.target_model import TargetModel
from lit_attr.errors import UnsupportedModelError
from lit_attr.topology.paths import PATH_TABLES, PathTable

_ANATOMIES: Mapping[str, Callable[[Any], Anatomy]] = {
    "GPT2LMHeadModel": gpt2_anatomy,
    "LlamaForCausalLM": llama_anatomy,
    "MistralForCausalLM": llama_anatomy,
    "Qwen2ForCausalLM": llama_anatomy,
    "Qwen3ForCausalLM": llama_anatomy,
    "GPTNeoXForCausalLM": gpt_neox_anatomy,
}
# Names that configurations give to the length of the longest sequence.
_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def as_target(model: nn.Module, table: PathTable) -> TargetModel:
    """Give a model the interface of a target model, in place; its state dict keeps its names.

    Args:
        model: A causal language model of `transformers`. The library changes the names of tensors when it loads or
            saves some of its own classes, but not of classes derived from them: it must have its weights already.
        table: Path table of the model. Closed forms are known for the package's own tables alone.

    Raises:
        UnsupportedModelError: If it has no embedding, unembedding or matrix where the table says, or rotary positions
            of an unknown type.
    """
    modules = dict(model.named_modules())
    for what, path, kind in (("embedding", table.embed, nn.Embedding), ("unembedding", table.output, nn.Linear)):
        if not isinstance(modules.get(path), kind):
            there = type(modules[path]).__name__ if path in modules else "nothing"
            raise UnsupportedModelError(
                f"{table.architecture}: expected the {what} (nn.{kind.__name__}) at {path!r}, found {there}"
            )
    for matrix in table.blocks:
        if (first := table.path(f"0.{matrix}")) not in modules:
            raise UnsupportedModelError(
                f"{table.architecture}: expected the matrix {matrix} at {first!r}, found nothing"
            )
    model.__class__ = _target_class(model, table)
    if not isinstance(model, TargetModel):
        raise TypeError(f"{type(model).__name__} has not become a target model")
    model.anatomy()  # says now what is not known of it
    return model.eval()


def _target_class(model: Any, table: PathTable) -> type[TargetModel]:  # noqa: ANN401 - classes of an optional library
    original: Any = type(model)
    anatomy = _ANATOMIES.get(original.__name__) if table == PATH_TABLES.get(table.architecture) else None
    sizes = (getattr(model.config, name, None) for name in _CONTEXT_NAMES)
    # Where none is given, positions are not counted, but told by their distance.
    longest = next((size for size in sizes if isinstance(size, int)), sys.maxsize)
    n_token_ids = model.get_submodule(table.embed).num_embeddings

    class HuggingFaceTarget(TargetModel, original):
        """The model, from token ids to logits."""

        @property
        def n_token_ids(self) -> int:
            return n_token_ids

        @property
        def block_size(self) -> int:
            return longest

        def forward(self, tokens: Tensor) -> Tensor:
            self.check_context(tokens)
            return original.forward(self, input_ids=tokens, use_cache=False).logits

        def anatomy(self) -> Anatomy | None:
            return anatomy and anatomy(self)

    HuggingFaceTarget.__name__ = HuggingFaceTarget.__qualname__ = original.__name__
    return HuggingFaceTarget
