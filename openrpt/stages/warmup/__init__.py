"""The cold start: completions to imitate, the loss on them, and the stage."""
