"""What a trained model is on disk: schema, verified reading, writing, ONNX export with parity, model card, export.

    model.json            schema version, architecture, preprocessing, labels, temperature, operating points, lineage
    weights.safetensors   the weights, for torch
    model.onnx            the network from packed uint8 images to logits, for everyone
    MODEL_CARD.md         for people
    SHA256SUMS            of the four files above, in the form that `sha256sum -c` reads

Or all of them as one `.clearmargin` file. No pickle anywhere. A changed byte is an error at load, and so is what we do
not write ourselves, whatever the hashes say.
"""
