"""From your own dialogues to a trained assistant and an honest table; run it beside my.jsonl (three minutes)."""

import pamdp

policy = pamdp.load("shipped")
print(policy.reply("I just moved to Lisbon."))  # a string, or a list of messages
data = pamdp.load_dialogues("my.jsonl").split(by="user")
clone = pamdp.clone(policy.backbone, data.train, run="runs/bc")


@pamdp.advantage("mine", oracle_target="matched")
def mine(b):
    """Eq. 6 once more: r + γ·V_φ(h′) − V_ξ(h, ω)."""
    return b.reward + b.discount * b.v_h_next - b.v_hw


agent = pamdp.reinforce(clone, data.train, judge="signals", advantage="mine", run="runs/mine")
print(pamdp.evaluate({"BC": clone, "mine": agent}, data.test, judges=["signals", "reward-model"]))
