"""OpenRPT: reinforcement pre-training.

corpus → documents → tokens → scoring → positions → prompts → generation → completions
→ rewards → rollouts → advantages → losses (on the document tree) → checkpoint → evaluation
→ report. Each word is a module; each stage is a function from files and a config to files.
"""

__version__ = "0.1.0"
