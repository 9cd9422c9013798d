"""The optimiser and the learning rate's schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from rspnet_cli.config import FinetuneOptimConfig, OptimConfig

MULTISTEP_GAMMA = 0.1


def learning_rate(config: OptimConfig | FinetuneOptimConfig, epoch: int) -> float:
    """The rate of an epoch, from 0: linear warm-up, then cosine from lr towards lr / 1000 (a step per epoch, as released), a tenth from
    each milestone on, or constant."""
    if epoch < config.warmup_epochs:
        return config.lr * (epoch + 1) / (config.warmup_epochs + 1)
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "multistep":
        return config.lr * MULTISTEP_GAMMA ** sum(epoch >= milestone for milestone in config.milestones)
    low = config.lr / 1000
    share = (epoch - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1)
    return low + (config.lr - low) * (1 + math.cos(math.pi * share)) / 2


def build_optimizer(config: OptimConfig | FinetuneOptimConfig, module: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over every parameter that is trained, with one weight decay for all."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # In one kernel on a GPU. Not on CPUs: there torch 2.13 first copies every channels_last tensor, 85 ms in r3d18's step of 1 s.
    fused = all(parameter.is_cuda for parameter in parameters)
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=config.sgd_momentum, weight_decay=config.weight_decay, fused=fused)
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
