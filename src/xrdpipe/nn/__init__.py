"""Neural networks: the only folder that imports torch, and never to read a model's card."""
