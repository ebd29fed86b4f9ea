// bpf(2): maps, small programs on tracepoints, and the constants that their instructions are made of.
// Every function returns its value or -errno.
#ifndef CLINUX_BPF_H
#define CLINUX_BPF_H

#include <stdint.h>

/// struct bpf_insn.
struct clx_bpf_instruction { uint8_t code; uint8_t registers; int16_t offset; int32_t value; };

/// A hash map (ring: a ring buffer of `entries` bytes).
int clx_bpf_hash(uint32_t key_size, uint32_t value_size, uint32_t entries);
int clx_bpf_ring(uint32_t bytes);
int clx_bpf_update(int map, const void *key, const void *value);
int clx_bpf_lookup(int map, const void *key, void *value);
/// Loads a program for raw tracepoints.
int clx_bpf_load(const struct clx_bpf_instruction *instructions, uint32_t count);
/// Attaches it to a tracepoint of the kernel; closing the descriptor that is returned ends that.
int clx_bpf_attach(int program, const char *tracepoint);

/// Positions in a ring buffer's memory, as both sides of it must read and write them.
uint64_t clx_bpf_position(const void *page);
void clx_bpf_set_position(void *page, uint64_t position);

#endif
