"""vLLM as the sampler: in this process, or a server's."""
