"""Tiny bases of many architectures, and adapters on them, checked against PEFT."""
