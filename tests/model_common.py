"""What tests of networks share."""

from __future__ import annotations

import torch
from torch import nn

from geopsp.models.build import ModelSpec, build_network
from geopsp.models.losses import LossSpec, total_loss


def trained_step(spec: ModelSpec, losses: LossSpec | None = None, *, batch_size: int = 1) -> nn.Module:
    """Train one step, and map an odd-sized tile; return the network."""
    network = build_network(spec).train()
    before = [p.detach().clone() for p in network.parameters()]
    labels, valid = torch.randint(0, spec.classes, (batch_size, 65, 97)), torch.ones(batch_size, 1, 65, 97)
    output = network(torch.randn(batch_size, spec.bands, 65, 97), valid)
    total_loss(output, labels, valid, losses or LossSpec(), None).backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    trained = [p for p in network.parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    assert any(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    with torch.inference_mode():
        logits = network.eval()(torch.randn(2, spec.bands, 37, 53))
    assert logits.shape == (2, spec.classes, 37, 53)
    return network
