"""``python -m fusible.demo``: a ResNet-50 is scripted, linted, fused, verified, saved, loaded in a new process and timed."""
