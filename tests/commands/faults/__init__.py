"""A harness that lets every file operation of every command fail, one at a time, and reads what the user would read.

    python -m tests.commands.faults [--each|--all] [COMMAND ...]

`shim.c` is preloaded and counts; `server.py` has imported both programs and forks a process for each run, so that a run costs as long as
the command itself; `child.py` does the same for the processes that a command starts; `scenarios.py` says how each command is run;
`harness.py` picks the operations and judges.
"""
