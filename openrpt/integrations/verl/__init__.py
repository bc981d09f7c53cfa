"""verl (0.9): what `openrpt export verl` writes, and what verl's rollout workers load of ours.

`export`, `settings` and `rows` make the folder; `loop` (the agent loop) and `reward` run inside
verl, whose transformers is older than ours: they import no engine and no stage.
"""
