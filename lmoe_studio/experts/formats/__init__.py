"""The ways in which tools keep a LoRA: each file reads one of them, in PEFT's words."""
