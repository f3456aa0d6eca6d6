"""Adapters that a visitor gives become a bank: what was asked for, unpacked, imported, and told of."""
