import os

# gRPC's own socket polling instead of its event engine saves a hand-over between threads for each message: 20 to 25 % of the
# cost of a hop. It is read once, when the library starts; whoever sets the variable knows better.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
