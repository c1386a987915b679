"""Sound: read, cut, heard in many ways, and drawn as spectrograms."""
