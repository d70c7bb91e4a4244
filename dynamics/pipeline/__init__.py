"""What is missing in a run, and the jobs that make it.

There is no queue: a job is a commit record that is missing and whose inputs exist. It is claimed with an OS file lock,
is a pure function of files, and can be done twice without harm.
"""
