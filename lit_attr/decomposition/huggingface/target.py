"""Language models of `transformers` as target models."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lit_attr.decomposition.anatomy import Anatomy
from lit_attr.decomposition.huggingface.gpt2 import gpt2_anatomy
from lit_attr.decomposition.huggingface.gpt_neox import gpt_neox_anatomy
from lit_attr.decomposition.huggingface.llama import llama_anatomy
from lit_attr.decomposition.targets.base import TargetModel
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


def as_target(model: nn.Module, table: PathTable) -> TargetModel:
    """Give a model the interface of a target model, in place; its state dict keeps its names.

    Args:
        model: A causal language model of `transformers`. The library changes the names of tensors when it loads or
            saves some of its own classes, but not of classes derived from them: it must have its weights already.
        table: Where it keeps its matrices. Closed forms are known for the package's own tables alone.

    Raises:
        UnsupportedModelError: If it has no embedding, unembedding or matrix where the table says.
    """
    modules = dict(model.named_modules())
    for what, path, kind in (("embedding", table.embed, nn.Embedding), ("unembedding", table.output, nn.Linear)):
        if not isinstance(modules.get(path), kind):
            found = type(modules[path]).__name__ if path in modules else "nothing"
            raise UnsupportedModelError(
                f"{table.architecture}: expected the {what} (nn.{kind.__name__}) at {path!r}, found {found}"
            )
    for matrix in table.blocks:
        if (first := table.path(f"0.{matrix}")) not in modules:
            raise UnsupportedModelError(
                f"{table.architecture}: expected the matrix {matrix} at {first!r}, found nothing"
            )
    model.__class__ = _target_class(type(model), table.embed, table == PATH_TABLES.get(table.architecture))
    if not isinstance(model, TargetModel):
        raise TypeError(f"{type(model).__name__} has not become a target model")
    return model.eval()


def _target_class(original: type[Any], embed: str, known: bool) -> type[TargetModel]:
    anatomy = _ANATOMIES.get(original.__name__) if known else None

    class HuggingFaceTarget(TargetModel, original):
        """The model, from token ids to logits."""

        @property
        def n_token_ids(self) -> int:
            embedding: Any = self.get_submodule(embed)
            return embedding.num_embeddings

        @property
        def block_size(self) -> int:
            config: Any = self.config
            return config.max_position_embeddings

        def forward(self, tokens: Tensor) -> Tensor:
            self.check_context(tokens)
            return original.forward(self, input_ids=tokens, use_cache=False).logits

        def anatomy(self) -> Anatomy | None:
            return anatomy and anatomy(self)

    HuggingFaceTarget.__name__ = HuggingFaceTarget.__qualname__ = original.__name__
    return HuggingFaceTarget
