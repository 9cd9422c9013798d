"""Backbones, projection heads and the encoder made of them."""
