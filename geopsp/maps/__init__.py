"""From a scene and a trained model to maps of any size."""
