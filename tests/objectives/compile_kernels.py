"""Compile the Triton kernels for GPUs that need not be there, and print what each build takes.

python -m tests.objectives.compile_kernels 80 90: for compute capabilities 8.0 and 9.0; a line each of capability, kernel, dtype, bytes of shared memory.
A program of its own, since Triton must be imported without its interpreter.
"""

from __future__ import annotations

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from contrapose.objectives._tiles import triton_kernels as kernels

NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
KERNELS = {
    kernels._sum_kernel: {
        "pointers": {"diagonals": "i32", "row_parts": "fp32", "column_parts": "fp32"},
        "constants": {"DIAGONALS": 3, "BY_COLUMN": True, "TRIANGLE": True},
    },
    kernels._slope_kernel: {"pointers": {"row_factor": "fp32", "column_factor": "fp32", "slopes": ""}, "constants": {}},
}


def build(kernel, parts, dtype: torch.dtype, capability: int):
    settings = kernels._settings(kernels.BLOCKS[dtype])
    options = {name: settings.pop(name) for name in ("num_warps", "num_stages")}
    pointers = {"x": "", "y": "", "row_labels": "i64", "column_labels": "i64"} | parts["pointers"]
    constants = {**settings, **parts["constants"]}
    signature = {
        name: "constexpr" if name in constants else
        f"*{pointers[name] or NAMES[dtype]}" if name in pointers else
        "fp32" if name in ("scale", "shift") else "i32"
        for name in kernel.arg_names
    }  # fmt: skip
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    aligned = {places[name]: [["tt.divisibility", 16]] for name in signature if name in {**pointers, "d": 0, "m": 0}}
    source = ASTSource(kernel, signature, {places[name]: value for name, value in constants.items()}, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


if __name__ == "__main__":
    for capability in map(int, sys.argv[1:]):
        for kernel, parts in KERNELS.items():
            for dtype, name in NAMES.items():
                built = build(kernel, parts, dtype, capability)
                print(capability, kernel.__name__, name, built.metadata.shared)
