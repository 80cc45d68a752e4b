"""Networks, losses and saved models."""
