"""Random problems and the definition, place by place, that attentive_scan is tested against."""

import torch
from torch import Tensor

PARAMETERS = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")


def random_problem(
    generator: torch.Generator,
    *,
    batch: int = 2,
    length: int = 37,
    channels: int = 6,
    states: int = 4,
    rank: int = 2,
    count: int = 5,
) -> tuple[dict[str, Tensor], Tensor]:
    """(arguments of attentive_scan in float64 but for tokens, tokens); some token is often chosen, and some never."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    arguments = {
        "x": normal(batch, length, channels),
        "policy": normal(batch, length, count).softmax(-1),
        "prompts": normal(count, states),
        "x_proj_weight": normal(1, rank + 2 * states, channels) / channels**0.5,
        "dt_projs_weight": normal(1, channels, rank) / rank**0.5,
        "dt_projs_bias": normal(1, channels) - 2.0,
        "A_logs": torch.log(torch.arange(1.0, states + 1)).double() + 0.1 * normal(channels, states),
        "Ds": normal(channels),
    }
    tokens = torch.randint(0, count, (batch, length), generator=generator)
    tokens[tokens == count - 1] = 0
    return arguments, tokens


def by_definition(tokens: Tensor, x: Tensor, policy: Tensor, prompts: Tensor, **parameters: Tensor) -> Tensor:
    """attentive_scan as its docstring says, in loops, differentiated by autograd."""
    x_proj, dt_proj, dt_bias, A_logs, Ds = (parameters[name] for name in PARAMETERS)
    rank, states = dt_proj.shape[2], A_logs.shape[1]
    rows = []
    for row, chosen, soft in zip(x, tokens, policy, strict=True):
        hard = torch.nn.functional.one_hot(chosen, prompts.shape[0]).to(soft)
        weights = hard - soft.detach() + soft
        order = sorted(range(len(row)), key=lambda place, chosen=chosen: (int(chosen[place]), place))
        state = torch.zeros_like(A_logs)
        outputs = [torch.zeros(0)] * len(row)
        for number, place in enumerate(order):
            u = row[place]
            dt, B, C = (x_proj[0] @ u).split((rank, states, states))
            C = C + weights[number] @ prompts
            delta = torch.nn.functional.softplus(dt_proj[0] @ dt + dt_bias[0])
            state = torch.exp(-delta[:, None] * A_logs.exp()) * state + (delta * u)[:, None] * B
            outputs[place] = state @ C + Ds * u
        rows.append(torch.stack(outputs))
    return torch.stack(rows)
