"""Samples with several parts, a picture and its sentence or any others: each part has its own modality."""
