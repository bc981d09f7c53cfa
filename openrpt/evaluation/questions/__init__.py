"""Right answers to questions with verifiable answers."""
