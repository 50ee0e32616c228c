"""Messages that went wrong on their way, sent to every RPC of a real cluster while good sessions run beside them."""
