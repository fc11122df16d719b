"""Slips in the CUDA kernels: (name, file, right, wrong), see slips.py. They run on the host."""

from __future__ import annotations

GATHER, PLACES = "csrc/cuda/gather.cpp", "csrc/cuda/gather.h"
PRODUCT, PLAN = "csrc/cuda/product.cuh", "csrc/cuda/product_plan.cpp"
MULTIPLY, REDUCE = "csrc/cuda/multiply.cuh", "csrc/cuda/reduce.cuh"
FOLD, GRADS, STEPS = "csrc/cuda/im2col.cu", "csrc/cuda/conv2d_grads.cu", "csrc/cuda/optimizers.cu"

# fmt: off
SLIPS = [
    ("one row too many is inside", PLACES,
     "static_cast<uint32_t>(place.row) < static_cast<uint32_t>(height)",
     "static_cast<uint32_t>(place.row) <= static_cast<uint32_t>(height)"),
    ("steps past the end are not nowhere", PLACES,
     "if (index >= end) return", "if (index > end) return"),
    ("columns of the kernel in rows of the picture", GATHER,
     "place(tap_step(cols) * source.w, 0, tap_step(cols), kernel_step(cols) * weight.w);",
     "place(tap_step(cols) * source.h, 0, tap_step(cols), kernel_step(cols) * weight.w);"),
    ("every phase written where the first one is", GATHER,
     "rows.dest(0) * dest.h + cols.dest(0) * dest.w", "0"),
    ("no barrier before the first places are read", PRODUCT,
     "first + thread, until);\n    }\n    __syncthreads();",
     "first + thread, until);\n    }"),
    ("no barrier between panel and product", PRODUCT,
     "        __syncthreads();  // everybody's", "        // everybody's"),
    ("panels multiplied before their copies are there", PRODUCT,
     "wait_for_copies<kAhead - 1>();", "wait_for_copies<kAhead>();"),
    ("weights packed for the other direction", PLACES,
     "if (packed) return dest_channels();", "if (packed) return source_channels();"),
    ("of a long sum the last piece alone", PRODUCT,
     "p.accumulate || first > begin;", "p.accumulate;"),
    ("one panel for all turns", PRODUCT,
     "auto& panel = scratch.panels[slot];", "auto& panel = scratch.panels[0];"),
    ("places of steps that are gone by", PRODUCT,
     "k + kStages * kDepth + thread, until", "k + kAhead * kDepth + thread, until"),
    ("bias of the first group for all on a GPU", PRODUCT,
     "tile.group * p.columns + (is_tall ? col : col + v);",
     "(is_tall ? col : col + v);"),
    ("columns past the last one written", PRODUCT,
     "if (v >= count) break;", ""),
    ("all parts sum the first part's steps", PRODUCT,
     "p.parts == 1 ? 0 : tile.part * p.part_steps;", "0;"),
    ("runs read wherever channels lie together", PLAN,
     "return line.last.by % static_cast<uint32_t>(width) == 0 &&", "return"),
    ("16 bytes read at any address", PLAN,
     "% (width * sizeof(T)) == 0 &&", "% sizeof(T) == 0 &&"),
    ("a warp's rows 8 apart swapped", MULTIPLY,
     "left[i][1] = bits(*panel.left_at(step, row + 8));",
     "left[i][1] = bits(*panel.left_at(step, row));"),
    ("no barrier between halves of a sum", REDUCE,
     "    __syncthreads();\n", ""),
    ("col2im's places over those still read", FOLD,
     "    }\n    __syncthreads();\n  }", "    }\n  }"),
    ("the last part of a gradient left out", GRADS,
     "part < count; part += kLanes", "part < count - 1; part += kLanes"),
    ("grad_bias divides pixels among channels", GRADS,
     "(picture * channels + channel) * pixels", "(picture + channel) * pixels"),
    ("no barrier before Adam's factors", STEPS, "  __syncthreads();\n", ""),
    ("Adam counts its steps from zero", STEPS,
     "pow(rule[1], rule[5])", "pow(rule[1], rule[5] - 1)"),
]
# fmt: on
