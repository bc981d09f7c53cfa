"""OpenRPT's models in lm-eval's own command: `python -m openrpt.integrations.lm_eval`."""
