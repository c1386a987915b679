"""Tables: their schema, reading them, and rows as a modality."""
