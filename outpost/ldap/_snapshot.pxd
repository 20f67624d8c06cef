# Nothing of the snapshot is shared with other compiled modules; its layout is in _arena.pxd.
