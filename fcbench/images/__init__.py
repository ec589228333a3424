"""Image codecs for remote inference: one file per codec, its ``PLUGIN`` an `ImageCodec`."""
