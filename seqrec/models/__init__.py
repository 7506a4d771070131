"""The models, by name. A new model is one file and one line here; nothing is imported before it is asked for."""

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


def model_class(name: str) -> type[SequenceModel]:
    """The class behind a name of MODELS. Raises InputError for any other."""
    chosen: type[SequenceModel] = choose(MODELS, name, "model", "model")
    return chosen
