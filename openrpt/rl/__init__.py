"""The way from completions to a gradient step: the box, rewards, advantages, losses, collecting,
updating.

Nothing here knows a run folder.
"""
