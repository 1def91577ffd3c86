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

    def to(self, device: Any) -> "Tensors":
        """All of them on a device."""
        return Tensors({name: tensor.to(device) for name, tensor in self.items()})


class Tokenizer:
    """Token ids of as many prompts as given, padded to the length asked for: no operator depends on their values.

    template: so many tokens of a template come before the PROMPT_TOKENS of the prompt; where given, a pipeline that pads to the longest
    prompt only (padding=True) finds no others.
    """

    padding_side = "right"
    pad_token = eos_token = ""
    pad_token_id = 0

    def __init__(self, model_max_length: int = 77, *, template: int | None = None):
        self.model_max_length = model_max_length
        self.template = template
        self.added_tokens_encoder: dict[str, int] = {}

    def __call__(self, text: Any, *, max_length: int | None = None, padding: Any = None, **_: Any) -> Tensors:
        length, real = max_length or self.model_max_length, (self.template or 0) + PROMPT_TOKENS
        if self.template is not None and padding is True:
            length = real
        shape = (1 if isinstance(text, str) else len(text), length)
        mask = torch.zeros(shape, dtype=torch.int64)
        mask[:, :real] = 1
        return Tensors(input_ids=torch.zeros(shape, dtype=torch.int64), attention_mask=mask)

    def apply_chat_template(self, messages: Any, *, tokenize: bool = True, **asked: Any) -> Any:
        """A conversation as one text, or the token ids of several."""
        return self(messages, **asked) if tokenize else "a photo"

    def batch_decode(self, ids: Any, **_: Any) -> list[str]:
        """Asked for by pipelines that warn of what was cut off."""
        return [""] * len(ids)

    def tokenize(self, text: str) -> list[str]:
        """Asked for by pipelines that look for tokens added to the vocabulary: there are none."""
        return text.split()

    def encode(self, text: str) -> list[int]:
        """English prose has about four tokens for three words."""
        return [0] * round(len(text.split()) * 4 / 3)


class Ids:
    """A tokenizer that returns the ids of one prompt as a list, and the processor around it."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [0] * PROMPT_TOKENS}

    def create_mm_token_type_ids(self, ids: list[list[int]]) -> list[list[int]]:
        """What each id stands for: text."""
        return [[0] * len(each) for each in ids]


class ImageProcessor:
    """Images resized and normalized for CLIP, as a processor on the host leaves them."""

    size = 224

    def __init__(self) -> None:
        self.crop_size = {"height": self.size, "width": self.size}

    def __call__(self, images: Any, **_: Any) -> Tensors:
        return Tensors(pixel_values=torch.zeros(len(images), 3, self.size, self.size))


class Guardrail:
    """Where a pipeline insists on one: it lets everything pass, and does nothing on the GPU."""

    def to(self, device: Any) -> None:
        """Nothing to move."""

    def check_text_safety(self, prompt: str) -> bool:
        """Any prompt is safe."""
        return True

    def check_video_safety(self, frames: Any) -> Any:
        """The frames as they are."""
        return frames


def prompts(options: Options) -> list[str]:
    """A prompt for each image."""
    return ["a photo"] * options.batch


def image(options: Options) -> torch.Tensor:
    """The pictures that videos start from, as the host has them: (batch, 3, height, width)."""
    assert options.height is not None
    assert options.width is not None
    return torch.zeros(options.batch, 3, options.height, options.width)
