"""Combined (paper 4.4): the weighted sum of all five terms, L2, adversarial, CLIP, character and coherence.

With `balance: gradients` a weight l says how strong a term's gradient is to be beside L2's: each term is scaled by
|grad L2| / |grad term|, as VQGAN's adaptive weight does (arXiv 2012.09841), averaged over the steps; GradNorm (arXiv
1711.02257) balances the same norms by learning the weights. The gradients are taken at the UNet's prediction, through
which all terms pass, so that no term is gone back through twice.
"""

from __future__ import annotations

import torch

from train.objectives.clip import CharTerm, ClipTerm
from train.objectives.discriminator import AdversarialTerm
from train.objectives.interface import Batch, Found, weighted_sum
from train.objectives.prediction import OnPrediction
from train.objectives.temporal import CoherenceTerm


BALANCE_EVERY = 4  # steps between two looks at the gradients, for each term's goes back through the decoder apart
DECAY = 0.92  # of the averaged scales
MAX_SCALE = 1e4  # as VQGAN's


class Combined(OnPrediction):
    """All five."""

    name = "combined"
    terms_of = {"adv": AdversarialTerm, "clip": ClipTerm, "char": CharTerm, "coher": CoherenceTerm}

    def __init__(self, config, painter):
        super().__init__(config, painter)
        self.scales: dict[str, float] = {}
        self.measured = True  # whether this step looks at them

    def find(self, batch: Batch) -> tuple[Found, dict[str, torch.Tensor]]:
        self.measured = batch.step % BALANCE_EVERY == 0
        return super().find(batch)

    def total(self, losses: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.config.balance == "fixed":
            return super().total(losses)
        self.logs = {}
        gradients = self._gradients(losses) if self.measured else {}
        weights = {name: self.weights[name] * self.scales.get(name, 0.0) for name in self.terms}
        self.logs |= {f"weight_{name}": weight for name, weight in weights.items()}
        if not self.measured:
            return weighted_sum(losses, weights)
        value = weighted_sum(losses, weights).detach()
        along = (
            self.prediction * weighted_sum(gradients, weights)
        ).sum()  # its gradient in the prediction is the sum's
        return value + along - along.detach()

    def _gradients(self, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Each term's gradient in the prediction; from their norms the scales move on."""
        node = self.prediction
        gradients = {name: torch.autograd.grad(loss, [node], retain_graph=True)[0] for name, loss in losses.items()}
        norms = torch.stack([gradient.norm() for gradient in gradients.values()])
        if self.painter.accelerator.num_processes > 1:
            norms = self.painter.accelerator.reduce(norms, "mean")
        norms = dict(zip(gradients, norms.tolist(), strict=True))
        for name in self.terms:
            if norms[name]:  # a batch without pairs says nothing
                scale = min(norms["l2"] / norms[name], MAX_SCALE)
                self.scales[name] = DECAY * self.scales.get(name, scale) + (1 - DECAY) * scale
        self.logs = {f"gradient_{name}": norm for name, norm in norms.items()}
        return gradients

    def state_dict(self) -> dict[str, object]:
        return {**super().state_dict(), "scales": dict(self.scales)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        super().load_state_dict(state)
        self.scales = dict(state["scales"])
