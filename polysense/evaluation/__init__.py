"""Judging frozen features: probes, retrieval, and measures of collapse, under one stated protocol."""

from polysense.evaluation.features import extract, extract_raw
from polysense.evaluation.judge import Judgement, judge, table
from polysense.evaluation.knn import knn_accuracy, knn_predict
from polysense.evaluation.linear import LinearProbe
from polysense.evaluation.protocol import Protocol
from polysense.evaluation.rank import alpha_req, feature_spread, rankme
from polysense.evaluation.retrieval import match_ranks, recall_at

__all__ = [
    "Judgement",
    "LinearProbe",
    "Protocol",
    "alpha_req",
    "extract",
    "extract_raw",
    "feature_spread",
    "judge",
    "knn_accuracy",
    "knn_predict",
    "match_ranks",
    "rankme",
    "recall_at",
    "table",
]
