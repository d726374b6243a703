"""The target models and causal-importance functions once more, straight from the specification, in float64."""

from collections.abc import Mapping, Sequence
from math import pi, sqrt
from typing import Any

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / sqrt(2)))


def rms_norm(x: Tensor, eps: float, weight: Tensor | float = 1.0) -> Tensor:
    return weight * x / ((x * x).mean(-1, keepdim=True) + eps).sqrt()


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred * centred).mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def rotate(x: Tensor, angle: Tensor, adjacent: bool = False) -> Tensor:
    """Complex numbers, turned: of pairs of neighbours, or of the first half and the second."""
    half = x.shape[-1] // 2
    first, second = (x[..., 0::2], x[..., 1::2]) if adjacent else (x[..., :half], x[..., half:])
    turned = torch.complex(first, second) * torch.complex(angle.cos().to(x), angle.sin().to(x))
    if adjacent:
        return torch.view_as_real(turned).flatten(-2)
    return torch.cat([turned.real, turned.imag], -1)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    n_head: int,
    angle: Tensor | None = None,
    adjacent: bool = False,
    causal: bool = True,
) -> Tensor:
    """Head by head and position by position; k and v may have fewer heads than q."""
    width = q.shape[-1] // n_head
    n_kv = k.shape[-1] // width
    heads = []
    for head in range(n_head):
        kv = head // (n_head // n_kv)
        parts = q[..., head * width :][..., :width], *(y[..., kv * width :][..., :width] for y in (k, v))
        one_q, one_k, one_v = parts
        if angle is not None:
            one_q, one_k = rotate(one_q, angle, adjacent), rotate(one_k, angle, adjacent)
        rows = []
        for position in range(q.shape[1]):
            seen = slice(position + 1 if causal else None)
            pattern = torch.softmax((one_k[:, seen] * one_q[:, position, None]).sum(-1) / sqrt(width), -1)
            rows.append((pattern[..., None] * one_v[:, seen]).sum(1))
        heads.append(torch.stack(rows, 1))
    return torch.cat(heads, -1)


def target_forward(
    state: State, options: Mapping[str, Any], tokens: Tensor, components: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the input of every matrix; with `components`, of the forward with all components on."""
    weights = {name.removeprefix("target_model."): t for name, t in state.items() if name.startswith("target_model.")}
    inputs: dict[str, Tensor] = {}

    def matrix(path: str, x: Tensor) -> Tensor:
        inputs[path] = x
        name = "_components." + path.replace(".", "-")
        if components and f"{name}.V" in state:
            return x @ (state[f"{name}.V"] @ state[f"{name}.U"]) + state.get(f"{name}.bias", 0)
        return x @ weights[f"{path}.weight"].T + weights.get(f"{path}.bias", 0)

    def norm(path: str, x: Tensor) -> Tensor:
        if f"{path}.bias" in weights:
            return layer_norm(x, weights[f"{path}.weight"], weights[f"{path}.bias"])
        return rms_norm(x, options.get("rms_norm_eps", 1e-6), weights[f"{path}.weight"])

    learned = "wpe.weight" in weights
    norms = ("ln_1", "ln_2") if learned else ("rms_1", "rms_2")
    half = options["n_embd"] // options["n_head"] // 2
    # The tables of the rotation are float32 by definition.
    position = torch.arange(tokens.shape[1]).clamp(max=options.get("n_ctx", 1024) - 1).float()
    angle = position[:, None] / options.get("rotary_base", 10000.0) ** (torch.arange(half).float() / half)
    x = weights["wte.weight"][tokens]
    if learned:
        x = x + weights["wpe.weight"][: tokens.shape[1]]
    for block in range(options["n_layer"]):
        h = norm(f"h.{block}.{norms[0]}", x)
        q, k, v = (matrix(f"h.{block}.attn.{name}_proj", h) for name in "qkv")
        z = attention(
            q, k, v, options["n_head"], None if learned else angle, options.get("rotary_adjacent_pairs", False)
        )
        x = x + matrix(f"h.{block}.attn.o_proj", z)
        h, mlp = norm(f"h.{block}.{norms[1]}", x), f"h.{block}.mlp"
        if f"{mlp}.gate_proj.weight" in weights:
            gate = matrix(f"{mlp}.gate_proj", h)
            hidden = gate / (1 + torch.exp(-gate)) * matrix(f"{mlp}.up_proj", h)
        else:
            hidden = gelu_tanh(matrix(f"{mlp}.c_fc", h))
        x = x + matrix(f"{mlp}.down_proj", hidden)
    return norm("ln_f", x) @ weights["lm_head.weight"].T, inputs


def stack(state: State, prefix: str, x: Tensor, pick: Sequence[int] = ()) -> Tensor:
    """The linear layers under a prefix, GELUs between; `pick` indexes weights that have an axis of components."""
    indices = sorted({int(n.removeprefix(prefix).split(".")[0]) for n in state if n.startswith(prefix)})
    for index in indices:
        weight, bias = state[f"{prefix}{index}.W"][*pick], state[f"{prefix}{index}.b"][*pick]
        x = x @ weight + bias
        if index != indices[-1]:
            x = gelu(x)
    return x


def ci_attention(state: State, prefix: str, x: Tensor, n_heads: int, base: float = 10000.0) -> Tensor:
    q, k, v = (x @ state[f"{prefix}{name}_proj.weight"].T for name in "qkv")
    half = x.shape[-1] // n_heads // 2
    angle = torch.arange(x.shape[1])[:, None] * state[f"{prefix}rope.inv_freq"]
    torch.testing.assert_close(state[f"{prefix}rope.inv_freq"].double(), base ** -(torch.arange(half).double() / half))
    return attention(q, k, v, n_heads, angle, causal=False) @ state[f"{prefix}out_proj.weight"].T
