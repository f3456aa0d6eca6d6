"""What it costs, side by side with PEFT; each module is a command."""
