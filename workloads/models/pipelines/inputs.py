"""What a pipeline of diffusers' is called with: token ids in place of a tokenizer's, images that are ready, prompts."""

from typing import Any

import torch

from simtti.workloads.workload import Options

# What a pipeline finds where it counts the tokens of a prompt.
PROMPT_TOKENS = 32


class Tensors(dict[str, torch.Tensor]):
    """What a tokenizer or an image processor returns: tensors by key and by attribute."""

    def __getattr__(self, name: str) -> torch.Tensor:
        return self[name]


class Tokenizer:
    """Token ids of as many prompts as given, padded to the length asked for: no operator depends on their values."""

    padding_side = "right"
    pad_token_id = 0

    def __init__(self, model_max_length: int = 77):
        self.model_max_length = model_max_length
        self.added_tokens_encoder: dict[str, int] = {}

    def __call__(self, text: Any, *, max_length: int | None = None, **_: Any) -> Tensors:
        shape = (1 if isinstance(text, str) else len(text), max_length or self.model_max_length)
        mask = torch.zeros(shape, dtype=torch.int64)
        mask[:, :PROMPT_TOKENS] = 1
        return Tensors(input_ids=torch.zeros(shape, dtype=torch.int64), attention_mask=mask)

    def tokenize(self, text: str) -> list[str]:
        """Asked for by pipelines that look for tokens added to the vocabulary: there are none."""
        return text.split()

    def encode(self, text: str) -> list[int]:
        """English prose has about four tokens for three words."""
        return [0] * round(len(text.split()) * 4 / 3)


class ImageProcessor:
    """Images resized and normalized for CLIP, as a processor on the host leaves them."""

    size = 224

    def __init__(self) -> None:
        self.crop_size = {"height": self.size, "width": self.size}

    def __call__(self, images: Any, **_: Any) -> Tensors:
        return Tensors(pixel_values=torch.zeros(len(images), 3, self.size, self.size))


def prompts(options: Options) -> list[str]:
    """A prompt for each image."""
    return ["a photo"] * options.batch


def image(options: Options) -> torch.Tensor:
    """The pictures that videos start from, as the host has them: (batch, 3, height, width)."""
    assert options.height is not None
    assert options.width is not None
    return torch.zeros(options.batch, 3, options.height, options.width)
