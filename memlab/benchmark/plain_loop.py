"""``python -m memlab.benchmark.plain_loop STEPS``: what ``python train.py`` computes, in a loop written by hand.

Nothing of memlab is in it: data, augmentation, encoder, read, loss, optimizer and schedule are what a careful user of
torch would write for the digits, with the numbers of memlab's default configuration. Nothing is logged, validated or
saved. It prints the seconds of a step, start-up apart.
"""

from __future__ import annotations

import math
import sys
import time

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

TRAINING_OBJECTS = 1293
BATCH, SUPPORT = 64, 512
CHANNELS, KERNEL, POOL, EMBEDDING = 16, 5, 2, 64
SCALE = 0.1
LEARNING_RATE, WEIGHT_DECAY = 0.002, 0.01
DEGREES, TRANSLATE, ZOOM = 10, 0.1, 0.1


def train(steps: int) -> tuple[list[float], list[float]]:
    """Train for so many steps; the loss and the accuracy of each epoch."""
    torch.manual_seed(0)
    digits = load_digits()
    rows = torch.randperm(len(digits.target))[:TRAINING_OBJECTS]
    images = torch.from_numpy(digits.images).float()[rows, None]
    labels = torch.from_numpy(digits.target)[rows]
    images = (images - images.mean()) / images.std()
    side = (images.shape[-1] - KERNEL + 1) // POOL
    encoder = nn.Sequential(
        nn.Conv2d(1, CHANNELS, KERNEL),
        nn.MaxPool2d(POOL),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(CHANNELS * side**2, EMBEDDING),
        nn.LayerNorm(EMBEDDING, bias=False),
    )
    log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))
    parameters = [*encoder.parameters(), log_scale]
    groups = [
        {"params": [each for each in parameters if each.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [each for each in parameters if each.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses, accuracies = [], []
    done = 0
    while done < steps:
        batches = torch.randperm(TRAINING_OBJECTS).split(BATCH)[: steps - done]
        loss_of_epoch, right = torch.zeros(()), torch.zeros(())
        for batch in batches:
            free = torch.ones(TRAINING_OBJECTS, dtype=torch.bool).index_fill_(0, batch, False).nonzero().flatten()
            support = free[torch.randperm(len(free))[:SUPPORT]]
            query, keys = encoder(augmented(images[batch])), encoder(augmented(images[support]))
            scores = -log_scale.exp() * squared_distances(query, keys)
            own = labels[batch][:, None] == labels[support]
            losses_of_queries = scores.logsumexp(1) - scores.masked_fill(~own, -torch.inf).logsumexp(1)
            loss = losses_of_queries[own.any(1)].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_of_epoch += loss.detach() * len(batch)
            right += (class_mass(scores.detach(), labels[support]).argmax(1) == labels[batch]).sum()
        done += len(batches)
        queries = sum(map(len, batches))
        losses.append(loss_of_epoch.item() / queries)
        accuracies.append(right.item() / queries)
    return losses, accuracies


def augmented(images: Tensor) -> Tensor:
    """Turn, shift and scale each image by amounts of its own."""
    turn, size, right, down = torch.empty(4, len(images)).uniform_(-1, 1)
    turn, factor = turn * math.radians(DEGREES), (size * math.log1p(ZOOM)).exp()
    cos, sin = turn.cos() / factor, turn.sin() / factor
    matrix = torch.stack([cos, -sin, 2 * TRANSLATE * right, sin, cos, 2 * TRANSLATE * down], dim=1).view(-1, 2, 3)
    background = images.amin(dim=(1, 2, 3), keepdim=True)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images - background, grid, align_corners=False) + background


def squared_distances(query: Tensor, keys: Tensor) -> Tensor:
    """(B, M) ``|u|^2 - 2 u . m + |m|^2``."""
    return torch.addmm(query.square().sum(1, keepdim=True) + keys.square().sum(1), query, keys.T, alpha=-2)


def class_mass(scores: Tensor, labels: Tensor) -> Tensor:
    """(B, C) share of each class in the softmax over the support."""
    return torch.zeros(len(scores), 10).index_add_(1, labels, scores.softmax(1))


if __name__ == "__main__":
    steps = int(sys.argv[1])
    train(20)
    start = time.perf_counter()
    train(steps)
    print((time.perf_counter() - start) / steps)
