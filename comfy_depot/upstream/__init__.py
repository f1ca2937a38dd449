"""The depot beside upstream ComfyUI: what our own core does for it there, done from outside.

    core.py           upstream's modules, each imported when it is asked for
    program.py        the options, and the start of the depot with upstream's server
    host.py           the port (`comfy_depot.host.Host`) made of upstream's server, queue and devices
    running.py        the prompt that runs now, and what is to be done between two prompts
    waiting.py        the prompts of the queue, and what their nodes have chosen
    loaders.py        a model loaded before a workflow asks for it
    memory.py         how much memory there is
    force_request.py  the fields `force` and `cache` of a request: pure
    forcing.py        nodes that run again although their results are kept
    page.py           the panel, and the models page

Our own server imports nothing of this; only `comfy_depot.hooks` does, and only where a hook stands that is
for upstream. Upstream's versions differ: what a newer one has is asked for by name and may be missing.
"""
