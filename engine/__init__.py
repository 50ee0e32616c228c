import os

# Stages of one host share its cores and take turns. Between two parallel regions of a stage its helper threads wait about 50 us:
# to sleep costs them a wake-up each time (GPT-2 on two cores: 29 ms a token instead of 22), and to spin on for the 3 ms that are
# usual steals from the stage whose turn it is (two stages at once: 103 ms instead of 26). So they spin for about half a millisecond.
# libgomp, which torch's Linux wheels bring, counts spins; other OpenMP runtimes know the policy alone. It is read once, when torch
# is loaded, and here no module of ours can load it earlier. Whoever sets one of the two knows better.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"] = "passive", "60000"
