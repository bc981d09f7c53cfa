"""Advantages within groups, for use elsewhere: public names of `openrpt.rl.advantages`."""

from openrpt.rl.advantages import group_advantages

__all__ = ["group_advantages"]
