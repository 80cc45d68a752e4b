"""The network: encoder, pyramid pooling, decoders, PointRend; `build` puts them together."""
