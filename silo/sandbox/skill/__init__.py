"""The conversation of one skill call with its guest, over the streams of any backend."""
