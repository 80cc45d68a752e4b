"""What tests of networks share."""

from __future__ import annotations

import torch
from torch import nn

from geopsp.models.build import ModelSpec, build_network
from geopsp.models.losses import LossSpec, total_loss


def trained_step(spec: ModelSpec, losses: LossSpec | None = None, *, checks_numbers: bool = True) -> nn.Module:
    """Train one step at batch one, and map an odd-sized tile; return the network.

    With `checks_numbers=False` it may be on the meta device.
    """
    network = build_network(spec).train()
    before = [p.detach().clone() for p in network.parameters()]
    labels, valid = torch.randint(0, spec.classes, (1, 65, 97)), torch.ones(1, 1, 65, 97)
    output = network(torch.randn(1, spec.bands, 65, 97), valid)
    if checks_numbers:
        total_loss(output, labels, valid, losses or LossSpec(), None).backward()
        torch.optim.SGD(network.parameters(), lr=0.1).step()
        assert any(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    else:
        torch.stack([part.sum() for part in output if part is not None and part.requires_grad]).sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    assert not checks_numbers or all(torch.isfinite(p.grad).all() for p in network.parameters() if p.requires_grad)
    with torch.inference_mode():
        logits = network.eval()(torch.randn(2, spec.bands, 37, 53))
    assert logits.shape == (2, spec.classes, 37, 53)
    return network
