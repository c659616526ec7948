"""Dropout that an object meets alike whatever it is encoded with."""

from __future__ import annotations

from torch import Tensor, nn

from memlab import draws


class Dropout(nn.Dropout):
    """Zeroes each feature with probability p in training, and divides the others by 1 - p (Srivastava et al. 2014).

    Which are zeroed follows from the step and the object alone (`memlab.draws`), so that a support encoded in chunks
    has the embeddings of one encoded at once. Where it is not known which objects there are, torch's generators decide.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, ...) to the same shape."""
        if not self.training or self.p == 0:
            return input
        width = input[0].numel() if len(input) else 0
        dropped = draws.dropped(len(input), width, p=self.p, device=input.device).view(input.shape)
        return input.masked_fill(dropped, 0).mul_(1 / (1 - self.p))
