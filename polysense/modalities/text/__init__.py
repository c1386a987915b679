"""Texts: reading, tokenizers, views made on whole batches of ids, and the modality with all of it."""
