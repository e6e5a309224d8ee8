"""WALI programs: modules that are Linux processes.

# _program.py      one of them; _task_program.py a trusted one as a task
# _suspending.py   how that waits
# _memory.py       their mappings
# _calls.py _process_calls.py _messages.py  their rare calls
# _threads.py      their threads; _atomics.py what those wait by
# _exec.py _executables.py  what they execute
# _environment.py  what they read theirs from
# _waits.py _locks.py  what would wait out of reach in a process that is not their own
# _audit_program.py  what they ask for, written down
"""
