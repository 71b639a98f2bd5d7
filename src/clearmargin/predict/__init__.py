"""The one door for predictions: from files to decisions with ONNX Runtime; torch is never imported."""
