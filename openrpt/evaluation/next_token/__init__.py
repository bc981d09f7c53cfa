"""Next-token accuracy by difficulty, with and without a thought, its controls, and comparisons."""
