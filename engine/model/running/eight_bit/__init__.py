BLOCK_TOKENS = 64  # what a session's keys and values are padded to, so that attention has few shapes
