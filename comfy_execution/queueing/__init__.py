"""The queue of prompts, its order, and the files in which queue and history survive the process.

`prompt_queue` is the queue that the server and its worker use; `waiting` puts its prompts in the order in
which they run, by the fields of a request that `schedule` reads. The rest makes them last: `durable` is what
a queue does with its journal, `journal` the SQLite file, `history` the finished prompts in it, `lock` the
right to use it, and `attempt` what the running prompt has done so far.
"""
