"""Talk with a trained assistant; an empty line ends it: `python examples/talk.py [RUN]`."""

import sys

import pamdp

policy = pamdp.load(sys.argv[1] if len(sys.argv) > 1 else "shipped")
messages: list[dict[str, str]] = []
while said := input("you: ").strip():
    messages.append({"role": "user", "content": said})
    messages.append({"role": "assistant", "content": policy.reply(messages)})
    print("pamdp:", messages[-1]["content"])
