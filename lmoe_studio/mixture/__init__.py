"""The routed forward pass, where base model, experts and routers meet."""
