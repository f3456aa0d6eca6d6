"""What-if runs: what mattered, found by running the model under other plans."""
