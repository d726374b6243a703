"""A decomposed model: its target forward, its causal importances, and its component forward with all components on."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_attr.decomposition.anatomy import Anatomy
from lit_attr.decomposition.ci.layerwise import dashed
from lit_attr.decomposition.ci.sigmoid import SIGMOIDS, binomial_shift
from lit_attr.decomposition.components import LinearComponents
from lit_attr.decomposition.config import RunConfig
from lit_attr.decomposition.matrix import forward_with_inputs, weight_of
from lit_attr.decomposition.targets.layers import compute_dtype
from lit_attr.decomposition.targets.target_model import TargetModel
from lit_attr.errors import UnsupportedModelError
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.paths import PathTable

# A seed is made of a batch id and a row; batches of more rows than this would share draws.
_MAX_ROWS = 1 << 24
# Is given a layer, and a tensor of its components.
Visitor = Callable[[str, Float[Tensor, "batch seq component"]], None]


@dataclass(frozen=True)
class Capture:
    """The tensors that one component forward leaves behind; the graph between them is that of the direct paths.

    Attributes:
        tokens: Token ids.
        embed: Token embeddings, before positions are added; a leaf.
        pre: Canonical layer to component activations as the matrix computes them from its input; in module order. Empty
            where a visitor took them.
        post: Copies of `pre` without their past: the leaves that later matrices depend on. Empty likewise.
        inputs: Layer to the input of its matrix; those that read the same tensor share it. Empty without a graph.
        residual: Residual stream behind the final norm, which the unembedding reads.
        logits: Logits of the next token.
        stream: Path of each norm to the residual stream that it reads; without a graph.
        inner: Layer to its output, for the matrices that read the residual stream in sublayers where one of them is
            decomposed; without a graph.
    """

    tokens: Int[Tensor, "batch seq"]
    embed: Float[Tensor, "batch seq d_model"]
    pre: Mapping[str, Float[Tensor, "batch seq _"]]
    post: Mapping[str, Float[Tensor, "batch seq _"]]
    inputs: Mapping[str, Float[Tensor, "batch seq _"]]
    residual: Float[Tensor, "batch seq d_model"]
    logits: Float[Tensor, "batch seq vocab"]
    stream: Mapping[str, Float[Tensor, "batch seq d_model"]]
    inner: Mapping[str, Float[Tensor, "batch seq _"]]


class DecomposedModel(nn.Module):
    """A target model, its components, and its causal-importance function; frozen, in eval mode.

    The names of the parts are those of a run's checkpoint, so that its state dict loads as it is.

    Args:
        target: The target model, from token ids to logits.
        table: Path table of the target.
        components: Path of each decomposed matrix to its components, in module order.
        ci_fn: Function from the matrices' inputs, by path, to pre-sigmoid causal importances, by path.
        config: The run's configuration, whose sigmoid and sampling are used; None for a `ci_fn` that gives causal
            importances themselves.
        vocab_size: Number of token ids.
        block_size: Longest sequence.

    Raises:
        UnsupportedModelError: If a decomposed matrix has no canonical address.
    """

    def __init__(
        self,
        target: TargetModel,
        table: PathTable,
        components: Mapping[str, LinearComponents],
        ci_fn: nn.Module,
        config: RunConfig | None,
        vocab_size: int,
        block_size: int,
    ) -> None:
        super().__init__()
        self.paths = {table.address(path): path for path in components}
        self.table = table
        self.config = config
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.target_model: TargetModel = target
        self._components = nn.ModuleDict({dashed(path): c for path, c in components.items()})
        self.ci_fn = ci_fn
        self.requires_grad_(requires_grad=False)
        self.eval()

    @property
    def n_components(self) -> dict[str, int]:
        """Canonical layer to number of components, in module order."""
        return {layer: self.components(layer).n_components for layer in self.paths}

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self._module(OUTPUT).get_parameter("weight").shape[1]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._module(OUTPUT).get_parameter("weight").device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of what the model computes, without autocast."""
        return compute_dtype(self._module(OUTPUT).get_parameter("weight").dtype)

    @property
    def unembedding(self) -> Float[Tensor, "d_model vocab"]:
        """The unembedding: a transposed view of the model's own weight, or a wider copy of it; see `widening`."""
        return self._module(OUTPUT).get_parameter("weight").detach().T.to(self.dtype)

    def components(self, layer: str) -> LinearComponents:
        """The components of a canonical layer."""
        module = self._components[dashed(self.paths[layer])]
        if not isinstance(module, LinearComponents):
            raise TypeError(f"components of {layer} are of type {type(module).__name__}")
        return module

    def weight(self, layer: str) -> Float[Tensor, "d_in d_out"]:
        """The target's own matrix of a decomposed layer, in the dtype that it is kept in: a view of its weight."""
        return weight_of(self._module(layer))

    def _module(self, layer: str) -> nn.Module:
        return self.target_model.get_submodule(self.table.path(layer))

    def anatomy(self) -> Anatomy | None:
        """The anatomy of the target; None for a model class whose anatomy is not known."""
        return self.target_model.anatomy()

    @property
    def libraries(self) -> list[str]:
        """Libraries, beside torch, whose code the target runs: their versions have a part in the numbers."""
        packages = {type(module).__module__.partition(".")[0] for module in self.target_model.modules()}
        return sorted(packages & {"transformers"})

    def causal_importance(
        self, tokens: Int[Tensor, "batch seq"], batch_id: int = 0, first_row: int = 0
    ) -> dict[str, Float[Tensor, "batch seq _"]]:
        """The causal importance of every component, by layer in module order; see `visit_importances`."""
        ci: dict[str, Tensor] = {}
        self.visit_importances(tokens, ci.__setitem__, batch_id, first_row)
        return {layer: ci[layer] for layer in self.paths}

    @torch.no_grad()
    def visit_importances(
        self, tokens: Int[Tensor, "batch seq"], visit: Visitor, batch_id: int = 0, first_row: int = 0
    ) -> None:
        """Run the unmodified target, without its unembedding, and find the causal importance of every component.

        Args:
            tokens: Token ids.
            visit: Is given each layer and its causal importances, nominally in [0, 1], as soon as they are there, in no
                particular order: those of all layers need not be held at once.
            batch_id: Global id of the batch, which seeds the draws of binomial sampling.
            first_row: Place of the first row in its batch, if `tokens` is a part of a batch.
        """
        with _replaced_forwards({self._module(OUTPUT): _no_logits}):
            _, inputs = forward_with_inputs(self.target_model, self.paths.values(), tokens)
        self._visit_importances(inputs, visit, batch_id, first_row)

    @torch.no_grad()
    def target_forward(
        self, tokens: Int[Tensor, "batch seq"], batch_id: int = 0, first_row: int = 0
    ) -> tuple[Float[Tensor, "batch seq vocab"], dict[str, Float[Tensor, "batch seq _"]]]:
        """Run the unmodified target, and find the causal importance of every component.

        Args:
            tokens: Token ids.
            batch_id: Global id of the batch, which seeds the draws of binomial sampling.
            first_row: Place of the first row in its batch, if `tokens` is a part of a batch.

        Returns:
            Logits, and canonical layer to causal importances, nominally in [0, 1].
        """
        logits, inputs = forward_with_inputs(self.target_model, self.paths.values(), tokens)
        ci: dict[str, Tensor] = {}
        self._visit_importances(inputs, ci.__setitem__, batch_id, first_row)
        return logits, ci

    def _visit_importances(self, inputs: Mapping[str, Tensor], visit: Visitor, batch_id: int, first_row: int) -> None:
        """Find causal importances from what the matrices read, by path; see `visit_importances`."""
        layers = {path: layer for layer, path in self.paths.items()}
        values = self.ci_fn({path: inputs[path] for path in layers})
        if self.config is not None and self.config.sampling == "binomial":
            known = dict(values)  # the draws of a layer depend on those of the layers before
            values = _sample_binomial({path: known.pop(path) for path in layers}, batch_id, first_row)
        for path, pre_sigmoid in values:
            ci = pre_sigmoid if self.config is None else SIGMOIDS[self.config.sigmoid](pre_sigmoid)
            visit(layers[path], ci)

    def component_forward(self, tokens: Int[Tensor, "batch seq"], *, graph: bool = True) -> Capture:
        """Run the target with all components in place of each decomposed matrix, cut into `pre` and `post`.

        Args:
            tokens: Token ids.
            graph: Whether to keep the graph of the direct paths, for gradients.
        """
        pre: dict[str, Tensor] = {}
        post: dict[str, Tensor] = {}
        inputs: dict[str, Tensor] = {}

        def cut(layer: str, components: LinearComponents, x: Tensor) -> Tensor:
            if graph:
                inputs[layer] = x
            pre[layer] = components.read(x)
            post[layer] = pre[layer].detach().requires_grad_()
            return components.write(post[layer])

        with torch.set_grad_enabled(graph):
            capture = self._component_forward(tokens, cut)
        return replace(
            capture,
            pre={layer: pre[layer] for layer in self.paths},
            post={layer: post[layer] for layer in self.paths},
            inputs=inputs,
        )

    @torch.no_grad()
    def visit_components(
        self, tokens: Int[Tensor, "batch seq"], visit: Visitor, recorded: Collection[str] | None = None
    ) -> Capture:
        """Run the target with all components, as `component_forward` does, and keep no activations of components.

        Args:
            tokens: Token ids.
            visit: Is given each layer and its component activations, in the order of the forward.
            recorded: Paths of norms and layers whose `stream` and `inner` are kept; None for all.

        Returns:
            A capture without `pre`, `post` and `inputs`.
        """

        def pass_on(layer: str, components: LinearComponents, x: Tensor) -> Tensor:
            activations = components.read(x)
            visit(layer, activations)
            return components.write(activations)

        return self._component_forward(tokens, pass_on, recorded)

    def _component_forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        replacement: Callable[[str, LinearComponents, Tensor], Tensor],
        recorded: Collection[str] | None = None,
    ) -> Capture:
        """Run the target with something else in place of each decomposed matrix; a capture of what lies between."""
        ends: dict[str, Tensor] = {}
        stream: dict[str, Tensor] = {}
        inner: dict[str, Tensor] = {}

        def checked(layer: str, components: LinearComponents, x: Tensor) -> Tensor:
            if x.ndim != 3:
                raise UnsupportedModelError(
                    f"the input of {layer} ({self.paths[layer]}) must have the axes batch, position and width, "
                    f"found the shape {tuple(x.shape)}"
                )
            return replacement(layer, components, x)

        def cut_embedding(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            ends[EMBED] = out.detach().requires_grad_()
            return ends[EMBED].clone()  # some models change it in place

        def record_input(into: dict[str, Tensor], name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
            into[name] = args[0]

        def record_output(name: str, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            inner[name] = out.detach()

        anatomy = self.anatomy()
        handles = [
            self._module(EMBED).register_forward_hook(cut_embedding),
            self._module(OUTPUT).register_forward_pre_hook(partial(record_input, ends, OUTPUT)),
        ]
        for norm in anatomy.norms if anatomy else ():
            if recorded is None or norm.path in recorded:
                module = self.target_model.get_submodule(norm.path)
                handles.append(module.register_forward_pre_hook(partial(record_input, stream, norm.path)))
        for layer in anatomy.inner_layers(self.paths) if anatomy else ():
            if recorded is None or layer in recorded:
                handles.append(self._module(layer).register_forward_hook(partial(record_output, layer)))
        replacements = {self._module(layer): partial(checked, layer, self.components(layer)) for layer in self.paths}
        try:
            with _replaced_forwards(replacements):
                logits = self.target_model(tokens)
        finally:
            for handle in handles:
                handle.remove()
        return Capture(
            tokens=tokens,
            embed=ends[EMBED],
            pre={},
            post={},
            inputs={},
            residual=ends[OUTPUT],
            logits=logits.detach(),
            stream={path: x.detach() for path, x in stream.items()},
            inner=inner,
        )


@contextmanager
def _replaced_forwards(replacements: Mapping[nn.Module, Callable[..., Tensor]]) -> Iterator[None]:
    """Let modules compute something else for a while, instead of what they would compute."""
    for module, forward in replacements.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in replacements:
            del module.forward


def _no_logits(x: Tensor) -> Tensor:
    """What stands for logits where nobody needs them."""
    return x[..., :0]


def _sample_binomial(pre_sigmoid: dict[str, Tensor], batch_id: int, first_row: int) -> Iterator[tuple[str, Tensor]]:
    """Add the noise of binomial sampling, drawn row by row on the CPU; what is given is used up.

    The draws of a row depend on its batch id and its place in the batch alone: not on the device, nor on how the
    batch was split.
    """
    n_rows = len(next(iter(pre_sigmoid.values())))
    seeds = range(batch_id * _MAX_ROWS + first_row, batch_id * _MAX_ROWS + first_row + n_rows)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for path in list(pre_sigmoid):
        x = pre_sigmoid.pop(path)
        draws = [torch.rand(x.shape[1:], generator=generator, dtype=torch.float32) for generator in generators]
        yield path, binomial_shift(x, torch.stack(draws).to(x))
