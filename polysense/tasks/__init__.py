"""What runs and tables are asked for: classes by words, captions, places, holes filled, rows drawn."""
