"""What joins the two texts of prod-image. See `models/prod_image.py`."""

import torch
from torch import nn

from simtti.workloads.models.prod_image import CONTEXT_WIDTH
from simtti.workloads.models.stable_diffusion import CLIP_L
from simtti.workloads.models.text_encoders import T5_XXL


class TextProjection(nn.Module):
    """Both encoders' states as one sequence of the UNet's context width."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = nn.Linear(CLIP_L["hidden_size"], CONTEXT_WIDTH)
        self.t5 = nn.Linear(T5_XXL["d_model"], CONTEXT_WIDTH)

    def forward(self, clip: torch.Tensor, t5: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.clip(clip), self.t5(t5)], dim=1)
