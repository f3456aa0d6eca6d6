"""What it costs and what it is worth, side by side with PEFT; each module or folder is a command."""
