"""The paper's experiments and open questions as code: `openrpt experiment NAME`."""
