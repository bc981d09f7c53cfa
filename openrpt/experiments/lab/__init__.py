"""The laboratory: ways to learn on a small world of text, from scratch, side by side."""
