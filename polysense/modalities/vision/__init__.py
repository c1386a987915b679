"""Pictures: reading, random views on whole batches, and the modality that ties them together."""
