"""A model's weights as its checkpoint has them."""

import copy

from openrpt.engine.model import Model, Weights


def checkpoint_weights(model: Model) -> Weights:
    """Returns all weights by the names that a checkpoint of the model has, LoRA's adapters merged
    into what they sit on. They are the model's own tensors where nothing is merged."""
    from transformers.core_model_loading import revert_weight_conversion

    whole = model.model
    if model.is_lora:  # merging in place and back would change the weights by rounding
        whole = copy.deepcopy(whole).merge_and_unload()
    tensors = {name: tensor.detach() for name, tensor in whole.state_dict().items()}
    weights: Weights = revert_weight_conversion(whole, tensors)
    return weights
