"""One text: which experts it meets, token by token and layer by layer.

python examples/explore_text.py --text "SELECT name FROM users"
"""

import argparse

import lmoe_studio as lmoe
from analysis import effective_experts, expert_usage, routing_frame, token_frame

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--bank", default="demo")
parser.add_argument("--text", default="SELECT name, total FROM orders -- les commandes du mois")
options = parser.parse_args()

studio = lmoe.Studio.load(options.bank)
trace = studio.trace(options.text, contributions=True)

tokens = token_frame(trace)
print(tokens[["token", "logprob", "top_expert", "top_weight", "margin"]].to_string(index=False))

frame = routing_frame(trace, special_tokens=False)
print("\nShare of the routing, and of what was added to the model:")
share = expert_usage(frame, by=())[["expert", "share"]]
added = expert_usage(frame, by=(), value="contribution")["share"]
print(share.assign(of_contributions=added).round(3).to_string(index=False))

depth = effective_experts(frame, by=("layer",))
sharpest = depth.loc[depth["token"].idxmin()]
print(
    f"\nSharpest in layer {sharpest['layer']:.0f}: {sharpest['token']:.2f} effective experts a token."
)
