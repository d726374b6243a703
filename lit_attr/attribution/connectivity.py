"""The attribution graph of a model: the gradient graph says which layers feed which."""

import torch

from lit_attr.decomposition.model import DecomposedModel
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.graph import Topology

# Any short sequence will do: whether a gradient exists is a property of the graph, not of its values.
_PROBE_SHAPE = (2, 3)


def trace_topology(model: DecomposedModel) -> Topology:
    """Find the attribution graph of a model.

    A layer feeds another if the component activations of the second have a gradient with respect to those of the first,
    every decomposed matrix cutting the graph. The order is that of discovery, source by source: targets that the
    embedding feeds come first. Targets whose matrices read one and the same tensor share an input.
    """
    n_rows, seq_len = _PROBE_SHAPE
    tokens = torch.zeros((n_rows, min(seq_len, model.block_size)), dtype=torch.long, device=model.device)
    capture = model.component_forward(tokens)
    sources = {EMBED: capture.embed, **capture.post}
    targets = {**capture.pre, OUTPUT: capture.residual}
    connected = {
        target: dict(
            zip(
                sources,
                torch.autograd.grad(value[0, 0, 0], list(sources.values()), retain_graph=True, allow_unused=True),
                strict=True,
            )
        )
        for target, value in targets.items()
        if value.requires_grad
    }
    feeding: dict[str, tuple[str, ...]] = {}
    for source in sources:
        for target, gradients in connected.items():
            if source != target and gradients[source] is not None:
                feeding[target] = (*feeding.get(target, ()), source)
    tensors = {target: capture.residual if target == OUTPUT else capture.inputs[target] for target in feeding}
    first: dict[int, str] = {}
    inputs = {target: first.setdefault(id(tensor), target) for target, tensor in tensors.items()}
    widths = {name: tensors[name].shape[-1] for name in first.values()}
    return Topology(model.n_components, feeding, model.vocab_size, model.d_model, inputs, widths)
