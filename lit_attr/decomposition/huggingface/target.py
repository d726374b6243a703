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
from lit_attr.optional import require
from lit_attr.topology.paths import PATH_TABLES, PathTable

_ANATOMIES: Mapping[str, Callable[[Any], Anatomy]] = {
    "GPT2LMHeadModel": gpt2_anatomy,
    "LlamaForCausalLM": llama_anatomy,
    "MistralForCausalLM": llama_anatomy,
    "Qwen2ForCausalLM": llama_anatomy,
    "Qwen3ForCausalLM": llama_anatomy,
    "GPTNeoXForCausalLM": gpt_neox_anatomy,
}


def target_class(architecture: str, table: PathTable) -> type[Any]:
    """A class of `transformers`, with the interface of a target model; its state dict keeps its names.

    Args:
        architecture: Name of the class, such as `LlamaForCausalLM`.
        table: Where it keeps its matrices. Closed forms are known for the package's own tables alone.

    Raises:
        DataError: If `transformers` is not installed.
        UnsupportedModelError: If it has no such class.
    """
    original: Any = getattr(require("transformers"), architecture, None)
    if not (isinstance(original, type) and issubclass(original, nn.Module)):
        raise UnsupportedModelError(f"the installed transformers has no model class {architecture!r}")
    anatomy = _ANATOMIES.get(architecture) if table == PATH_TABLES.get(architecture) else None

    class HuggingFaceTarget(TargetModel, original):
        """The model, from token ids to logits."""

        @property
        def n_token_ids(self) -> int:
            embedding: Any = self.get_submodule(table.embed)
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

    HuggingFaceTarget.__name__ = HuggingFaceTarget.__qualname__ = architecture
    return HuggingFaceTarget
