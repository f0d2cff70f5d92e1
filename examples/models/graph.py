"""An ONNX graph of any width: python examples/models/graph.py && batcher serve mean.onnx."""

import sys

import onnx
from onnx import TensorProto, helper

# "rows" is the axis of the batch, and "width" differs from request to request.
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "width"])
mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["rows"])
axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
node = helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=0)
graph = helper.make_graph([node], "mean", [x], [mean], [axis])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
onnx.checker.check_model(model)
onnx.save(model, sys.argv[1] if len(sys.argv) > 1 else "mean.onnx")
