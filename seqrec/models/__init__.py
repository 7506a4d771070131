"""The models, by name. A new model is one file and one line here; nothing is imported before it is asked for."""

from __future__ import annotations

from importlib import import_module

from seqrec.errors import InputError
from seqrec.model import SequenceModel

MODELS = {
    "bag_of_words": "seqrec.models.bag_of_words:BagOfWords",
    "recformer": "seqrec.models.recformer:Recformer",
}


def model_class(name: str) -> type[SequenceModel]:
    """The class behind a name of MODELS. Raises InputError for any other."""
    if name not in MODELS:
        raise InputError(f"no model {name!r}; there are {', '.join(sorted(MODELS))}", "model")
    module, _, attribute = MODELS[name].partition(":")
    loaded: type[SequenceModel] = getattr(import_module(module), attribute)
    return loaded
