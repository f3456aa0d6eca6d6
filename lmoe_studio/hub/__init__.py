"""A bank in other people's code: as a model of transformers, and on the Hugging Face hub."""
