"""From a corpus or questions to prompts: documents, exact bytes, scores, positions. No torch."""
