"""What all networks share: vocabulary, losses, the one trainer, and the way into an ONNX file that is checked.

It has no stage of its own. Modules here import torch, so only training imports them; serving reads the file.
"""
