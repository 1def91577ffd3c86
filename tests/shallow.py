"""Models with a block or two of each kind in place of dozens: their builders run in a second or two."""

import inspect

from simtti.workloads.recording import Recording

BLOCKS = (
    "num_layers", "num_single_layers", "n_layers", "num_refiner_layers", "n_refiner_layers", "num_visual_blocks", "num_text_blocks",
    "num_layerwise_text_blocks", "num_refiner_text_blocks",
)  # fmt: skip
# Of text encoders, as many as their pipelines ask the states of.
STATES = {
    "Qwen3ForCausalLM": 28, "Mistral3ForConditionalGeneration": 31, "Qwen3VLModel": 36,
    "Qwen3VLForConditionalGeneration": 51,
}  # fmt: skip
# What says which of a text encoder's states a model takes: of three layers.
OF_TEXT = {"llama_layers": [0, 1], "text_proj_in_factor": 4}


def make_shallow(patch):
    """Until `patch` is undone, denoisers have one block of each kind and text encoders three."""
    build = Recording.build

    def few(self, factory, *args, dtype, **kwargs):
        if factory.__module__.startswith("diffusers"):
            taken = inspect.signature(factory.__init__).parameters
            if "Transformer" in factory.__name__:
                kwargs |= {name: 1 for name in BLOCKS if name in taken}
            kwargs |= {name: states for name, states in OF_TEXT.items() if name in taken}
        for config in args:
            for part in (config, getattr(config, "text_config", None)):
                for name in ("num_hidden_layers", "num_layers"):
                    if hasattr(part, name):
                        setattr(part, name, STATES.get(factory.__name__, 3))
                if getattr(part, "layer_types", None):
                    part.layer_types = part.layer_types[: part.num_hidden_layers]
            if hasattr(config, "vision_config"):
                config.vision_config.depth = 1
        return build(self, factory, *args, dtype=dtype, **kwargs)

    patch.setattr(Recording, "build", few)
