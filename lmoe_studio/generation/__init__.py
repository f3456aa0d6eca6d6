"""Text, token by token: sampling, the decoding loop, and strings as they come."""
