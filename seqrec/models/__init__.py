"""The models by name. A new model is one file and one line here. A model is imported when it is first used."""

from __future__ import annotations

from seqrec.models.base.model import SequenceModel
from seqrec.registry import choose

MODELS = {
    "attrec": "seqrec.models.attrec:AttRec",
    "bag_of_words": "seqrec.models.bag_of_words:BagOfWords",
    "bert4rec": "seqrec.models.bert4rec:BERT4Rec",
    "fbsm": "seqrec.models.fbsm:FBSM",
    "fdsa": "seqrec.models.fdsa:FDSA",
    "gru4rec": "seqrec.models.gru4rec:GRU4Rec",
    "hybrid": "seqrec.models.hybrid:Hybrid",
    "recformer": "seqrec.models.recformer.model:Recformer",
    "recguru": "seqrec.models.recguru:RecGURU",
    "residual": "seqrec.models.residual:Residual",
    "s3rec": "seqrec.models.s3rec:S3Rec",
    "sasrec": "seqrec.models.sasrec:SASRec",
    "unisrec": "seqrec.models.unisrec:UniSRec",
    "zesrec": "seqrec.models.zesrec:ZESRec",
}

TEXT_ENCODER = "recformer"
"""The model that takes over the weights of a BERT-like text encoder."""


def model_class(name: str) -> type[SequenceModel]:
    """The class of a name in MODELS. Raises InputError for an unknown name."""
    chosen: type[SequenceModel] = choose(MODELS, name, "model", "model")
    return chosen
