"""Translators: maps from the latent past [B, T·hid_S, H', W'] to the latent future, one file each."""
