"""A model, and what runs it: loading, checks, scoring, decoding, generation, the document tree."""
